package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Each thing that can be wrong with a store is found, and what is right is not.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), fmt.Appendf(nil, "content %d", i), 0o600))
	}
	tests := []struct {
		name   string
		damage func(put func(key, value string), del func(key string))
		want   findings
	}{
		{"as it should be", func(func(k, v string), func(string)) {}, findings{checked: 12}},
		{"one under way", func(put func(k, v string), _ func(string)) { put("round2/f2", "content 2") }, findings{checked: 12, flight: 1}},
		{"missing", func(_ func(k, v string), del func(string)) { del("round1/f3"); del("round2/f0") }, findings{checked: 12, missing: 2}},
		{"another value", func(put func(k, v string), _ func(string)) { put("round1/f3", "content 4") }, findings{checked: 12, wrong: 1}},
		{"emptied", func(put func(k, v string), _ func(string)) { put("round1/f3", "") }, findings{checked: 12, wrong: 1}},
		{"never written", func(put func(k, v string), _ func(string)) { put("round3/f3", "content 3") }, findings{checked: 12, extra: 1}},
		{"in part", func(put func(k, v string), _ func(string)) { put("round2/f5", "conte") }, findings{checked: 12, extra: 1}},
		{"too many under way", func(put func(k, v string), _ func(string)) {
			put("round2/f2", "content 2")
			put("round2/f3", "content 3")
			put("round2/f4", "content 4")
		}, findings{checked: 12, flight: 3, extra: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, err := readSource(t.Context(), dir)
			require.NoError(t, err)
			p := newPlan(src, 2)
			db, err := forebay.Open("db", &forebay.Options{FS: vfs.NewMem()})
			require.NoError(t, err)
			defer db.Close()
			put := func(k, v string) { require.NoError(t, db.Put([]byte(k), []byte(v))) }
			for n := range 12 {
				put(p.jobs[n].Key, fmt.Sprintf("content %d", n%10))
				p.states[n] = acked
			}
			p.states[5] = shown // must stay as well
			tt.damage(put, func(k string) { require.NoError(t, db.Delete([]byte(k))) })
			got, err := p.verify(db, 2)
			require.NoError(t, err)
			require.Equal(t, tt.want.lost()+tt.want.extra > 0, got.first != "")
			got.first = ""
			require.Equal(t, tt.want, *got)
			require.Equal(t, 1+tt.want.flight, p.count(shown))
		})
	}
}

// A source tree that changes is not mistaken for a loss.
func TestVerifyChangedSource(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(file, []byte("before"), 0o600))
	src, err := readSource(t.Context(), dir)
	require.NoError(t, err)
	equal, err := src.equal(0, []byte("before"))
	require.NoError(t, err)
	require.True(t, equal)
	require.NoError(t, os.WriteFile(file, []byte("afterwards"), 0o600))
	_, err = src.equal(0, []byte("before"))
	require.ErrorIs(t, err, errChanged)
	require.NoError(t, os.Remove(file))
	_, err = src.equal(0, []byte("before"))
	require.ErrorIs(t, err, errChanged)
}

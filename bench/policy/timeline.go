package policy

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Ack is the acknowledgement of a write.
type Ack struct {
	// At is when the writer got it, in nanoseconds from the begin of the run.
	At int64
	// LSN is that of its commit; Unwritten where the log had not given it to the
	// operating system when the run ended.
	LSN uint64
}

// Unwritten stands for the LSN of a commit that no write of the log held.
const Unwritten = math.MaxUint64

// Step says that from the moment At on all commits up to LSN are safe: from a
// power cut where it is of a sync, from a kill where it is of a write.
type Step struct {
	At  int64
	LSN uint64
}

// Timeline is what a run did, in the order of time.
type Timeline struct {
	// From and To bound the window that is measured, in nanoseconds from the
	// begin of the run.
	From, To int64
	Acks     []Ack
	// Written steps are writes that returned, Synced steps are syncs. LSNs grow.
	Written, Synced []Step
}

// Loss is what one cut takes: how many acknowledged writes, and how old the
// oldest of them is, 0 where there is none.
type Loss struct {
	Records int64
	Age     time.Duration
}

// Moments draws n moments of the window from a seed, in order.
func (t *Timeline) Moments(n int, seed uint64) []int64 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	at := make([]int64, n)
	for i := range at {
		at[i] = t.From + r.Int64N(max(t.To-t.From, 1))
	}
	slices.Sort(at)
	return at
}

// PowerCuts returns what a power cut at each of the moments loses, which are in
// order.
func (t *Timeline) PowerCuts(at []int64) []Loss { return t.losses(t.Synced, at) }

// Kills is PowerCuts for a kill of the process.
func (t *Timeline) Kills(at []int64) []Loss { return t.losses(t.Written, at) }

// losses goes through acknowledgements, steps and moments once, side by side.
func (t *Timeline) losses(steps []Step, at []int64) []Loss {
	var safe, last uint64
	for i := range t.Acks {
		if lsn := t.Acks[i].LSN; lsn != Unwritten {
			last = max(last, lsn)
		}
	}
	acked := make([]bool, last+1) // by LSN
	var lost int64
	out := make([]Loss, 0, len(at))
	ack, step, oldest := 0, 0, 0
	for _, now := range at {
		for ; ack < len(t.Acks) && t.Acks[ack].At <= now; ack++ {
			switch lsn := t.Acks[ack].LSN; {
			case lsn <= safe:
				continue
			case lsn != Unwritten:
				acked[lsn] = true
			}
			lost++
		}
		for ; step < len(steps) && steps[step].At <= now; step++ {
			for ; safe < steps[step].LSN; safe++ {
				if safe < last && acked[safe+1] {
					lost--
				}
			}
		}
		for oldest < ack && t.Acks[oldest].LSN <= safe {
			oldest++
		}
		l := Loss{Records: lost}
		if oldest < ack {
			l.Age = time.Duration(now - t.Acks[oldest].At)
		}
		out = append(out, l)
	}
	return out
}

func sortAcks(acks []Ack) {
	slices.SortFunc(acks, func(a, b Ack) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.LSN, b.LSN))
	})
}

// Losses sums up what many cuts took.
type Losses struct {
	Cuts    int        `json:"cuts"`
	Records [3]int64   `json:"records_median_p99_max"`
	Ms      [3]float64 `json:"ms_median_p99_max"`
}

func sum(ls []Loss) Losses {
	s := Losses{Cuts: len(ls)}
	if len(ls) == 0 {
		return s
	}
	pick := func(i int) [3]int { return [3]int{i / 2, (i*99 + 99) / 100, i} }(len(ls) - 1)
	slices.SortFunc(ls, func(a, b Loss) int { return cmp.Compare(a.Records, b.Records) })
	for i, k := range pick {
		s.Records[i] = ls[k].Records
	}
	slices.SortFunc(ls, func(a, b Loss) int { return cmp.Compare(a.Age, b.Age) })
	for i, k := range pick {
		s.Ms[i] = float64(ls[k].Age) / 1e6
	}
	return s
}

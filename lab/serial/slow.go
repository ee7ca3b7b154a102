package serial

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// slowSync is a file system whose syncs take a while, each another one.
type slowSync struct {
	vfs.FS
	max  time.Duration
	seed uint64
	mu   sync.Mutex // guards rng
	rng  *rand.Rand
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (s *slowSync) Create(name string, m vfs.Mode) (vfs.File, error) {
	f, err := s.FS.Create(name, m)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s}, nil
}

func (s *slowSync) delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rng == nil {
		s.rng = rand.New(rand.NewPCG(s.seed, 4))
	}
	return time.Duration(s.rng.Int64N(int64(s.max)))
}

func (f slowFile) SyncData() error {
	for end := time.Now().Add(f.fs.delay()); time.Now().Before(end); {
		time.Sleep(time.Microsecond)
	}
	return f.File.SyncData()
}

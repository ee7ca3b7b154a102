package vfs

import "io"

// injFile is a File of an Injector.
type injFile struct {
	in   *Injector
	f    File
	name string
	mode Mode
}

// Unwrap returns the file below.
func (f *injFile) Unwrap() File { return f.f }

func (f *injFile) ReadAt(p []byte, off int64) (n int, err error) {
	r := f.in.begin(CallRead, f.name)
	if r == nil {
		return f.f.ReadAt(p, off)
	}
	if part := min(r.Part, len(p)); part > 0 {
		n, err = f.f.ReadAt(p[:part], off)
		if err != nil {
			return n, err
		}
	}
	return n, r.err(CallRead, f.name)
}

func (f *injFile) WriteAt(p []byte, off int64) (n int, err error) { return f.write(f.f, p, off) }

// write is a write to the file by way of below.
func (f *injFile) write(below io.WriterAt, p []byte, off int64) (n int, err error) {
	r := f.in.begin(CallWrite, f.name)
	if r == nil {
		return below.WriteAt(p, off)
	}
	write := below.WriteAt
	part := min(r.Part, len(p))
	if r.After {
		part = len(p)
	} else if d, ok := unwrapFile[SyncFailer](f.f); ok && f.mode&DSync != 0 {
		write = d.FailWrite
	}
	if part > 0 {
		if n, err = write(p[:part], off); err != nil {
			return n, err
		}
	}
	// All bytes written is no error to an io.WriterAt, so it does not say so.
	return min(n, max(len(p)-1, 0)), r.err(CallWrite, f.name)
}

func (f *injFile) Zero(off, n int64) error { return f.fill(off, n, f.f.Zero) }

// fill is Zero, or Reserve, by way of below.
func (f *injFile) fill(off, n int64, below func(off, n int64) error) error {
	r := f.in.begin(CallZero, f.name)
	if r == nil {
		return below(off, n)
	}
	part := min(int64(r.Part), n)
	if r.After {
		part = n
	}
	if part > 0 {
		if err := below(off, part); err != nil {
			return err
		}
	}
	return r.err(CallZero, f.name)
}

func (f *injFile) Sync() error     { return f.sync(CallSync, f.f.Sync) }
func (f *injFile) SyncData() error { return f.sync(CallSyncData, f.f.SyncData) }

func (f *injFile) sync(c Call, sync func() error) error {
	r := f.in.begin(c, f.name)
	if r == nil {
		return sync()
	}
	if r.After {
		if err := sync(); err != nil {
			return err
		}
	} else if d, ok := unwrapFile[SyncFailer](f.f); ok {
		d.FailSync()
	}
	return r.err(c, f.name)
}

func (f *injFile) Size() (size int64, err error) {
	err = f.in.do(CallSize, func() (err error) { size, err = f.f.Size(); return err }, f.name)
	if err != nil {
		return 0, err
	}
	return size, nil
}

// Close closes the file also where it fails, as the kernel does.
func (f *injFile) Close() error {
	r := f.in.begin(CallClose, f.name)
	err := f.f.Close()
	if r != nil && err == nil {
		err = r.err(CallClose, f.name)
	}
	return err
}

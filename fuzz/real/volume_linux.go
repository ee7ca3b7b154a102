package real

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// available says what is missing here.
func available(systems []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this is not root", ErrUnavailable)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, s := range systems {
		if _, ok := kinds[s]; !ok {
			return fmt.Errorf("there are file systems ext4 and xfs, and not %q", s)
		}
		if _, err := exec.LookPath("mkfs." + s); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil
}

// apart gives a child a mount namespace of its own, and ends it with its parent
// (for the kernel that is a thread; those of Go stay).
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
}

// kind is how a file system is made and mounted.
type kind struct {
	size    int64
	make    []string // arguments of mkfs
	options []string // one of them for each volume
}

var kinds = map[string]kind{
	"ext4": {64 << 20, []string{"-q", "-F", "-O", "^resize_inode", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"},
		[]string{"data=ordered", "data=writeback", "data=ordered,nodelalloc", "data=journal"}},
	"xfs": {300 << 20, []string{"-q", "-f", "-K"}, []string{"", "wsync"}},
}

// volume is a file system in a file without a name. Nothing of it outlives the
// process.
type volume struct {
	system, options string
	image           *os.File
	dir             string // where it is mounted
	root            *os.File
}

// newVolume makes a file system; place is a directory for it.
func newVolume(place, system, options string) (v *volume, err error) {
	k := kinds[system]
	v = &volume{system: system, options: options, dir: filepath.Join(place, system)}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return nil, err
	}
	name := v.dir + ".image"
	if v.image, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	err = v.image.Truncate(k.size)
	if err == nil {
		var out []byte
		if out, err = exec.Command("mkfs."+system, append(k.make[:len(k.make):len(k.make)], name)...).CombinedOutput(); err != nil {
			err = fmt.Errorf("mkfs.%s: %w: %s", system, err, out)
		}
	}
	if err = errors.Join(err, os.Remove(name)); err != nil {
		return nil, errors.Join(err, v.image.Close())
	}
	return v, nil
}

// String names the kind.
func (v *volume) String() string {
	if v.options == "" {
		return v.system
	}
	return v.system + " " + v.options
}

// loopOver puts a loop device over a file. It goes away when nobody has it open
// or mounted.
func loopOver(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 64 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		cfg := &unix.LoopConfig{Fd: uint32(image.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), cfg); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else has taken it
			return nil, fmt.Errorf("%s: %w", loop.Name(), err)
		}
	}
	return nil, errors.New("no loop device stays free")
}

// mount mounts it, which replays the journal after a cut. Each mount has a loop
// device of its own, that goes with it: the cache of a device that stays open keeps
// blocks of metadata as they were before the cut, of which the disk has nothing.
func (v *volume) mount() error {
	loop, err := loopOver(v.image)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), v.dir, v.system, unix.MS_NOATIME, v.options); err != nil {
		return fmt.Errorf("mount %v: %w", v, err)
	}
	root, err := os.Open(v.dir)
	if err != nil {
		return errors.Join(err, unix.Unmount(v.dir, 0))
	}
	v.root = root
	return nil
}

// cut shuts the file system down as it is: its journal is not flushed, and all
// calls fail from here on.
func (v *volume) cut() error {
	const (
		shutdown   = 0x8004587d // XFS_IOC_GOINGDOWN; EXT4_IOC_SHUTDOWN is the same
		noLogFlush = 2
	)
	flags := uint32(noLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, v.root.Fd(), shutdown, uintptr(unsafe.Pointer(&flags)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return fmt.Errorf("shut %v down: %w", v, errno)
	}
	return nil
}

// unmount unmounts it. Somebody who still has a file of it open is given a moment.
func (v *volume) unmount() error {
	err := v.root.Close()
	for wait := time.Millisecond; ; wait *= 2 {
		uerr := unix.Unmount(v.dir, 0)
		if uerr == nil || !errors.Is(uerr, unix.EBUSY) || wait > 2*time.Second {
			if uerr != nil {
				err = errors.Join(err, fmt.Errorf("unmount %v: %w", v, uerr))
			}
			return err
		}
		time.Sleep(wait)
	}
}

// room describes how much of it is free.
func (v *volume) room() string {
	var st unix.Statfs_t
	if err := unix.Statfs(v.dir, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d of %d blocks free, %d of %d inodes", st.Bavail, st.Blocks, st.Ffree, st.Files)
}

// close lets go of it, and looks that it is sound, where there is something that
// can: a judgement of files is worth nothing where their file system is damaged.
func (v *volume) close() error {
	defer v.image.Close()
	fsck, err := exec.LookPath("e2fsck")
	if v.system != "ext4" || err != nil {
		return nil
	}
	if err := v.mount(); err != nil { // for the journal
		return err
	}
	if err := v.unmount(); err != nil {
		return err
	}
	cmd := exec.Command(fsck, "-f", "-n", "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{v.image}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v is damaged: %w: %s", v, err, out)
	}
	return nil
}

package vfs

// Call is one kind of call on an FS, a File or a lock. Injector counts and
// fails calls by kind, Recorder and Mem.OnIO report them by kind.
type Call uint8

// The kinds of call.
const (
	CallNone       Call = iota
	CallCreate          // FS.Create
	CallOpen            // FS.Open
	CallRemove          // FS.Remove
	CallRename          // FS.Rename
	CallMkdir           // FS.MkdirAll
	CallList            // FS.List
	CallStat            // FS.Stat
	CallSyncDir         // FS.SyncDir
	CallLock            // FS.Lock
	CallLockShared      // FS.LockShared
	CallUnlock          // Close of what FS.Lock or FS.LockShared returned
	CallRead            // File.ReadAt
	CallWrite           // File.WriteAt
	CallZero            // File.Zero, Reserver.Reserve
	CallSize            // File.Size
	CallSync            // File.Sync
	CallSyncData        // File.SyncData
	CallClose           // File.Close
	CallMark            // Recorder.Mark: no call at all, an event of the application
	numCalls
)

var callNames = [numCalls]string{
	"none", "create", "open", "remove", "rename", "mkdir", "list", "stat",
	"syncdir", "lock", "lockshared", "unlock", "read", "write", "zero", "size", "sync",
	"syncdata", "close", "mark",
}

// String returns the lower-case name of the kind ("write").
func (c Call) String() string {
	if c < numCalls {
		return callNames[c]
	}
	return "call?"
}

package collector

import (
	"math"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

const (
	// The sandbox's memory files are among its first descriptors.
	firstDescriptors = 64
	blockBytes       = 512

	// What counts against the sandbox's memory beside those files and this heap: page tables and
	// the processes in which the guest's programs run.
	otherBytes = 8 * mib

	// How much the heap may grow between two collections in a sandbox that is full.
	leastGrowthBytes   = 2 * mib
	leastGrowthPercent = 12

	// A smaller change of the limit is not worth stopping the world for.
	limitStepBytes = mib

	// With less than this part of its memory left a sandbox is looked at every second, also idle.
	scarceShare = 2
)

// Limit is how much memory the kernel may take before it collects whatever the pace: what the guest
// leaves of the sandbox's memory. In a full sandbox that is less than what lives, and the kernel
// would do nothing but collect; so what lives may always grow a little.
//
// The arguments are the sandbox's memory, what its guest has of it, what lives on the heap, and what
// this process has beside that.
func Limit(total, guest, live, beside int64) int64 {
	if total == 0 {
		return math.MaxInt64
	}
	growth := max(leastGrowthBytes, live*leastGrowthPercent/100)
	return max(total-guest-otherBytes, live+beside+growth)
}

// room keeps the kernel within what the guest leaves of the sandbox's memory. The host counts both
// together and ends the sandbox at the limit, however much of the heap is garbage.
type room struct {
	total func() int64
	guest func() int64

	mutex sync.Mutex
	limit int64
}

func newRoom() *room { return &room{total: totalBytes, guest: guestBytes} }

// look sets the limit anew, and collects if it is exceeded. It says whether memory is scarce.
func (r *room) look() bool {
	total, guest := r.total(), r.guest()
	if held() > r.set(total, guest) {
		debug.FreeOSMemory()
	}
	return total-guest < total/scarceShare
}

// follow sets the limit anew after a collection, which knows what lives.
func (r *room) follow() { r.set(r.total(), r.guest()) }

func (r *room) set(total, guest int64) int64 {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	heap := int64(read("/memory/classes/heap/objects:bytes") + read("/memory/classes/heap/free:bytes"))
	limit := Limit(total, guest, int64(read("/gc/heap/live:bytes")), held()-heap)
	if limit > r.limit+limitStepBytes || limit < r.limit-limitStepBytes {
		debug.SetMemoryLimit(limit)
		r.limit = limit
	}
	return r.limit
}

// held is what this process has of the host's memory, as Go counts it against the limit.
func held() int64 {
	return int64(read("/memory/classes/total:bytes") - read("/memory/classes/heap/released:bytes"))
}

// totalBytes is the sandbox's memory as its guest sees it; 0 before that is known.
func totalBytes() int64 { return int64(usage.MaximumTotalMemoryBytes) }

// guestBytes is what the memory files of this process have: files that nothing names. The control
// group itself cannot be read from within the sandbox.
func guestBytes() int64 {
	var blocks int64
	seen := make(map[uint64]bool, 4)
	for descriptor := range firstDescriptors {
		var stat unix.Stat_t
		if unix.Fstat(descriptor, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if stat.Nlink == 0 && !seen[stat.Ino] {
			seen[stat.Ino] = true
			blocks += stat.Blocks
		}
	}
	return blocks * blockBytes
}

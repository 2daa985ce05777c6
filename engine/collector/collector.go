// Package collector sets Go's garbage collector for processes that live for milliseconds and for
// sandboxes that live for days.
//
// Go collects when the heap has doubled since the last collection. The kernel of a fresh sandbox
// has 4 MiB, so it would collect several times during a restore, which is what a fork waits for.
// And a sandbox that has become idle would not collect at all: what 16,000 closed connections left
// behind would stay for ever, and count against the sandbox's memory. Where its guest leaves little
// of that memory, garbage alone could end it: there the kernel collects early (limit.go).
package collector

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	mib = 1 << 20

	// Below this heap nothing is collected. A restore of an idle sandbox allocates about 12 MiB.
	floorBytes = 48 * mib

	// Above it the heap may grow by this much of what lives before the next collection.
	growthPercent = 50

	// Go collects for the first time at 4 MiB times the percentage.
	goMinimumBytes = 4 * mib

	// A sandbox that allocated less than this between two looks is idle.
	idleBytes = mib

	// What may have piled up since the last collection before an idle sandbox gives it back.
	wasteBytes = 4 * mib

	// A heap that much of which may die without anything being allocated: closed connections,
	// which stay for a minute. It is looked at again after that, and then ever more rarely.
	largeBytes = 16 * mib

	firstLook  = time.Second
	lastLook   = 16 * time.Second
	firstAgain = 70 * time.Second
	lastAgain  = time.Hour
)

// ForCommand is for a process that ends by itself after milliseconds: it never collects.
func ForCommand() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 * mib)
}

// ForSandbox is for the kernel of a sandbox. It returns at once; what it starts runs on.
func ForSandbox() {
	debug.SetGCPercent(100 * floorBytes / goMinimumBytes)
	room := newRoom()
	afterEachCollection(func() { setPace(); room.follow() })
	go giveBackWhenIdle(time.Sleep, room.look)
}

// Percentage is the heap's growth, in percent of what lives, after which to collect next.
func Percentage(liveBytes uint64) int {
	if liveBytes == 0 {
		return 100 * floorBytes / goMinimumBytes
	}
	untilFloor := 100 * (floorBytes - int64(liveBytes)) / int64(liveBytes)
	return int(max(untilFloor, growthPercent))
}

func setPace() {
	debug.SetGCPercent(Percentage(read("/gc/heap/live:bytes")))
}

// afterEachCollection calls a function after every collection, on the goroutine of finalizers. An
// object that nobody refers to is found by the next collection, and its finalizer makes another.
func afterEachCollection(call func()) {
	type sentinel struct{ _ *int }
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		call()
		afterEachCollection(call)
	})
}

// giveBackWhenIdle collects and gives memory back to the host once a burst of work is over. It
// looks every second while there is work or memory is scarce, and ever more rarely while neither is.
func giveBackWhenIdle(sleep func(time.Duration), isScarce func() bool) {
	wait, again := firstLook, firstAgain
	seen, clean := allocated(), allocated()
	var since time.Duration // the last collection of ours
	for {
		sleep(wait)
		since += wait
		scarce := isScarce()
		now := allocated()
		idle := now-seen < idleBytes
		seen = now
		switch {
		case !idle:
			wait, again = firstLook, firstAgain
			continue
		case now-clean >= wasteBytes:
		case since >= again && read("/gc/heap/live:bytes") >= largeBytes:
			again = min(2*again, lastAgain)
		default:
			if wait = min(2*wait, lastLook); scarce {
				wait = firstLook
			}
			continue
		}
		debug.FreeOSMemory()
		clean, since = allocated(), 0
	}
}

func allocated() uint64 { return read("/gc/heap/allocs:bytes") }

func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

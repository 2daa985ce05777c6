package collector

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentageKeepsTheFloorAndThenHalfAsMuchAgain(t *testing.T) {
	for _, test := range []struct {
		liveMiB uint64
		wantMiB uint64
	}{{1, 48}, {8, 48}, {16, 48}, {32, 48}, {40, 60}, {100, 150}, {1000, 1500}} {
		live := test.liveMiB * mib
		next := (live + live*uint64(Percentage(live))/100) / mib
		if next+1 < test.wantMiB || next > test.wantMiB {
			t.Errorf("with %d MiB alive the next collection is at %d MiB, not at %d",
				test.liveMiB, next, test.wantMiB)
		}
	}
	if got := Percentage(0) * goMinimumBytes / 100; got != floorBytes {
		t.Errorf("a fresh process collects at %d bytes", got)
	}
}

func TestThePaceFollowsWhatLives(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	done := make(chan struct{}, 8)
	afterEachCollection(func() { setPace(); done <- struct{}{} })
	alive := make([]byte, 64*mib)
	for range 3 { // each collection is followed by the next: the sentinel is made anew
		runtime.GC()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("a collection was not noticed")
		}
	}
	if got := debug.SetGCPercent(100); got != growthPercent {
		t.Errorf("with %d MiB alive the heap may grow by %d %%", len(alive)/mib, got)
	}
	runtime.KeepAlive(alive)
}

func TestAnIdleProcessGivesItsMemoryBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var waits []time.Duration
	before := released()
	stop := make(chan struct{})
	go giveBackWhenIdle(func(wait time.Duration) {
		waits = append(waits, wait)
		switch len(waits) {
		case 1: // work
			garbage := make([]byte, 128*mib)
			for at := range garbage {
				garbage[at] = 1
			}
		case 9:
			close(stop)
			select {}
		}
	}, func() bool { return false })
	<-stop
	if gave := released() - before; gave < 100*mib {
		t.Errorf("gave back %d MiB of 128", gave/mib)
	}
	want := []time.Duration{1, 1, 1, 2, 4, 8, 16, 16, 16}
	for at, wait := range waits {
		if wait != want[at]*time.Second {
			t.Fatalf("waited %v", waits)
		}
	}
}

func TestALargeIdleHeapIsLookedAtAgain(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var slept time.Duration
	var collections []time.Duration
	alive := make([]byte, 64*mib)
	runtime.GC() // from now on the heap is known to be large
	seen := cycles()
	stop := make(chan struct{})
	go giveBackWhenIdle(func(wait time.Duration) {
		if now := cycles(); now != seen {
			collections, seen = append(collections, slept), now
		}
		if slept += wait; slept > 10*time.Minute {
			close(stop)
			select {}
		}
	}, func() bool { return false })
	<-stop
	if len(collections) != 3 {
		t.Fatalf("in ten minutes it collected at %v", collections)
	}
	for at, want := range []time.Duration{firstAgain, 3 * firstAgain, 7 * firstAgain} {
		if got := collections[at]; got < want || got > want+4*lastLook {
			t.Errorf("it collected at %v, not about at %v", got, want)
		}
	}
	runtime.KeepAlive(alive)
}

func cycles() uint64 { return read("/gc/cycles/total:gc-cycles") }

func released() uint64 { return read("/memory/classes/heap/released:bytes") }

package collector

import (
	"math"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheLimitIsWhatTheGuestLeavesAndNeverWithoutRoomToWork(t *testing.T) {
	for _, test := range []struct{ total, guest, live, beside, want int64 }{
		{512, 100, 24, 8, 512 - 100 - 8},
		{512, 400, 24, 8, 512 - 400 - 8},
		{512, 490, 8, 8, 8 + 8 + 2},
		{512, 510, 100, 8, 100 + 8 + 12},
		{512, 600, 0, 0, 2},
	} {
		got := Limit(test.total*mib, test.guest*mib, test.live*mib, test.beside*mib)
		if got != test.want*mib {
			t.Errorf("%+v: the limit is %d MiB", test, got/mib)
		}
	}
	if Limit(0, 0, mib, mib) != math.MaxInt64 {
		t.Error("a sandbox whose memory is not known has a limit")
	}
}

func TestAFullSandboxGivesItsGarbageBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	guest := int64(100 * mib)
	full := room{total: func() int64 { return 512 * mib }, guest: func() int64 { return guest }}
	if full.look() {
		t.Error("a fifth of the memory is said to be much")
	}
	before := released()
	garbage := make([]byte, 64*mib)
	for at := range garbage {
		garbage[at] = 1
	}
	full.look()
	if gave := int64(released() - before); gave > mib {
		t.Errorf("gave back %d MiB while there was room", gave/mib)
	}
	guest = 508 * mib
	if !full.look() {
		t.Error("it has little left and does not say so")
	}
	if gave := int64(released() - before); gave < 48*mib {
		t.Errorf("gave back %d MiB of 64", gave/mib)
	}
}

func TestWhatTheGuestHasIsInFilesWithoutAName(t *testing.T) {
	before := guestBytes()
	file, err := unix.MemfdCreate("a", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	if _, err := unix.Write(file, make([]byte, 3*mib)); err != nil {
		t.Fatal(err)
	}
	again, err := unix.Dup(file) // which is the same memory
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	if got := guestBytes() - before; got != 3*mib {
		t.Errorf("a memory file of 3 MiB counts as %d bytes", got)
	}
}

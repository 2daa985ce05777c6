// Package timewait has a sandbox forget closed connections at once.
//
// TCP keeps a connection that was closed for a minute, in case a segment of it still travels. In a
// sandbox none does: its network is its loopback interface, which neither loses nor reorders. The
// kept ones cost much: 10 KB each, half a millisecond each in every checkpoint, and, since they are
// removed by timers that nothing stops, now and then one is removed while a checkpoint reads it,
// which ends the sandbox.
//
// How long they are kept is an option of the network stack that no file of the guest's sets. The
// stack is reached as package reclaim is reached: by a trace sink, which gets the kernel with the
// first process that is cloned. The option is part of a snapshot, so it is set once, at a cold boot.
package timewait

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Name is what the sink is called in a session's configuration.
const Name = "mitos-timewait"

// Long enough for the last segments of a connection to be worked off.
const keep = time.Millisecond

type sink struct {
	seccheck.SinkDefaults
	once sync.Once
}

// Name implements seccheck.Sink.
func (*sink) Name() string { return Name }

// Status implements seccheck.Sink.
func (*sink) Status() seccheck.SinkStatus { return seccheck.SinkStatus{} }

// Stop implements seccheck.Sink.
func (*sink) Stop() {}

// Clone implements seccheck.Sink. Every process of the sandbox is announced here.
func (s *sink) Clone(ctx context.Context, _ seccheck.FieldSet, _ *pb.CloneInfo) error {
	s.once.Do(func() { shorten(ctx) })
	return nil
}

func shorten(ctx context.Context) {
	stack, ok := kernel.KernelFromContext(ctx).RootNetworkNamespace().Stack().(*netstack.Stack)
	if !ok {
		log.Warningf("The sandbox has no network stack of its own")
		return
	}
	option := tcpip.TCPTimeWaitTimeoutOption(keep)
	if err := stack.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, &option); err != nil {
		log.Warningf("Closed connections cannot be forgotten: %v", err)
	}
}

// Register makes the sink known. It is called once, before the control socket answers.
func Register() {
	seccheck.RegisterSink(seccheck.SinkDesc{
		Name: Name,
		New:  func(map[string]any, *fd.FD) (seccheck.Sink, error) { return &sink{}, nil },
	})
}

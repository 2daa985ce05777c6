// Package reclaim lets the server have a sandbox's kernel give memory back, say before a checkpoint
// of a sandbox that is near its limit.
//
// The control socket's methods are gVisor's own and cannot be added to. What can be is a trace sink,
// which `containerManager.CreateTraceSession` makes by name: this one does its work while it is made
// and then receives nothing, because the session traces no points. The call returns when the memory
// has been given back.
package reclaim

import (
	"runtime/debug"

	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
)

// Name is what the sink is called in a session's configuration.
const Name = "mitos-reclaim"

type sink struct {
	seccheck.SinkDefaults
}

// Name implements seccheck.Sink.
func (sink) Name() string { return Name }

// Status implements seccheck.Sink.
func (sink) Status() seccheck.SinkStatus { return seccheck.SinkStatus{} }

// Stop implements seccheck.Sink.
func (sink) Stop() {}

// Register makes the sink known. It is called once, before the control socket answers.
func Register() {
	seccheck.RegisterSink(seccheck.SinkDesc{
		Name: Name,
		New: func(map[string]any, *fd.FD) (seccheck.Sink, error) {
			debug.FreeOSMemory()
			return sink{}, nil
		},
	})
}

// The engine: gVisor's `runsc`, built by us from its Go module.
//
// What flags cannot set is set here, before gVisor's own main runs: when the collector works and
// when memory goes back to the host (package collector), a call that gives it back at once (package
// reclaim), and how long closed connections are kept (package timewait). Everything else is gVisor's,
// as published.
package main

import (
	"os"
	"strings"

	"gvisor.dev/gvisor/runsc/cli/maincli"

	"mitos.run/engine/collector"
	"mitos.run/engine/reclaim"
	"mitos.run/engine/timewait"
)

func main() {
	if subcommand(os.Args[1:]) == "boot" {
		reclaim.Register()
		timewait.Register()
		collector.ForSandbox()
	} else {
		collector.ForCommand()
	}
	maincli.Main()
}

// subcommand is the first argument that is no flag. gVisor passes its flags as --name=value.
func subcommand(arguments []string) string {
	for _, argument := range arguments {
		if !strings.HasPrefix(argument, "-") {
			return argument
		}
	}
	return ""
}

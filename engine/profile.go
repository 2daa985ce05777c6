//go:build profile

package main

import "runtime"

// A restore takes some 25 ms of CPU, of which the usual 100 samples a second see two.
func init() { runtime.SetCPUProfileRate(2000) }

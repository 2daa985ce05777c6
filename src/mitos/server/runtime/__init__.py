"""The runtime service `sandbox.v1.Sandbox`: what is done inside a running sandbox, over Connect."""

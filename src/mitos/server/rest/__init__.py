"""The `/v1` routes and the operators' routes, a module for each resource.

Each parses and renders for itself. `request` is what they share: the request with its body and ids.
`router` puts them together.
"""

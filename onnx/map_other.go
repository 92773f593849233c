//go:build !unix

package onnx

// mapFile reads the file whole.
func mapFile(path string) (*mapping, error) { return readFile(path) }

//go:build cgo && linux && !race

package main

// raceDetector says that memory is shadowed: how much a process takes says nothing.
const raceDetector = false

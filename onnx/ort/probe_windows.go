//go:build cgo

package ort

import (
	"errors"
	"syscall"
	"unsafe"
)

// probe loads a library and returns the version it reports; see probe_unix.go.
func probe(path string) (string, error) {
	dll, err := syscall.LoadDLL(path)
	if err != nil {
		return "", err
	}
	entry, err := dll.FindProc("OrtGetApiBase")
	if err != nil {
		return "", errors.New("is not ONNX Runtime: it lacks OrtGetApiBase")
	}
	base, _, _ := entry.Call()
	if base == 0 {
		return "", errors.New("is not ONNX Runtime: it gives no version")
	}
	// The second member of OrtApiBase is GetVersionString; ORT owns the text.
	members := *(**[2]uintptr)(unsafe.Pointer(&base))
	text, _, _ := syscall.SyscallN(members[1])
	return cString(*(**byte)(unsafe.Pointer(&text))), nil
}

func cString(p *byte) string {
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(p, n))
}

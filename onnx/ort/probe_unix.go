//go:build cgo && !windows

package ort

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// The head of OrtApiBase; its two members have not moved since version 1.0.
typedef struct {
	const void *(*api)(unsigned int);
	const char *(*version)(void);
} apiBase;

static const char *version_of(void *entry) {
	const apiBase *base = ((const apiBase *(*)(void))entry)();
	return base == NULL ? NULL : base->version();
}
*/
import "C"

import (
	"errors"
	"unsafe"
)

// probe loads a library and returns the version it reports. The library stays
// loaded: unloading ONNX Runtime while its threads end is not safe, and the
// bindings load the same file again anyway.
func probe(path string) (string, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	handle := C.dlopen(name, C.RTLD_LAZY|C.RTLD_LOCAL)
	if handle == nil {
		return "", errors.New(C.GoString(C.dlerror()))
	}
	symbol := C.CString("OrtGetApiBase")
	defer C.free(unsafe.Pointer(symbol))
	entry := C.dlsym(handle, symbol)
	if entry == nil {
		C.dlclose(handle)
		return "", errors.New("is not ONNX Runtime: it lacks OrtGetApiBase")
	}
	version := C.version_of(entry)
	if version == nil {
		return "", errors.New("is not ONNX Runtime: it gives no version")
	}
	return C.GoString(version), nil
}

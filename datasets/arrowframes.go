package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	flatbuffers "github.com/google/flatbuffers/go"
)

// maxMetadata bounds a message's metadata: that of a record batch is some hundred bytes for a
// column.
const maxMetadata = 16 << 20

// A frameReader passes on the messages of an Arrow IPC stream: the library makes room for as
// many bytes as each says it has, and not by its allocator, so that is looked at before.
type frameReader struct {
	in    io.Reader
	limit int64 // of a body
	head  bytes.Buffer
	body  int64 // bytes of the current body that are left
	err   error
}

// Read gives the next bytes of the stream.
func (f *frameReader) Read(p []byte) (int, error) {
	switch {
	case f.err != nil:
		return 0, f.err
	case f.head.Len() > 0:
		return f.head.Read(p)
	case f.body > 0:
		n, err := f.in.Read(p[:min(int64(len(p)), f.body)])
		f.body -= int64(n)
		f.err = err
		return n, err
	}
	f.err = f.next()
	if f.head.Len() > 0 {
		return f.head.Read(p)
	}
	return 0, f.err
}

// next reads what comes in front of a body: a marker, which is absent before Arrow 0.15, the length
// of the metadata, 0 at the end of the stream, and the metadata.
func (f *frameReader) next() (err error) {
	defer contain(&err)
	f.head.Reset()
	kept := io.TeeReader(f.in, &f.head)
	var word [4]byte
	if _, err := io.ReadFull(kept, word[:]); err != nil {
		return err
	}
	if word == [4]byte{0xff, 0xff, 0xff, 0xff} {
		if _, err := io.ReadFull(kept, word[:]); err != nil {
			return err
		}
	}
	size := int64(binary.LittleEndian.Uint32(word[:]))
	if size == 0 {
		return nil
	}
	if size < 8 || size > maxMetadata {
		f.head.Reset()
		return fmt.Errorf("a message says its metadata has %d bytes, want 8 to %d", size, maxMetadata)
	}
	start := f.head.Len()
	if _, err := io.CopyN(io.Discard, kept, size); err != nil {
		return unexpected(err)
	}
	m := root(f.head.Bytes()[start:])
	if at := m.Offset(slotMessageBody); at != 0 {
		f.body = m.GetInt64(m.Pos + flatbuffers.UOffsetT(at))
	} else {
		f.body = 0
	}
	if f.body < 0 || f.body > f.limit {
		f.head.Reset()
		return fmt.Errorf("a message says it has %d bytes, want 0 to %d", f.body, f.limit)
	}
	return nil
}

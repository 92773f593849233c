package datasets

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// arrowMagic opens an Arrow IPC file, padded to 8 bytes, and ends it.
const arrowMagic = "ARROW1"

// arrowFile reads Arrow IPC, one record batch at a time. A file is a stream with
// a magic number before it and a footer behind it and is read as one, so that
// compressed files need no random access; that the footer is there is checked.
type arrowFile struct {
	in      *tailReader
	footer  bool // an IPC file, not a stream
	reader  *ipc.Reader
	batch   arrow.Record
	at      int             // next row of batch
	columns [numColumns]int // index in the schema, -1 for absent
	foreign int             // as row.foreign
}

// openArrow reads the schema of a stream, or of a file where footer is set.
func openArrow(in io.Reader, footer bool, x index, alloc memory.Allocator) (s *arrowFile, err error) {
	defer contain(&err)
	s = &arrowFile{in: &tailReader{in: in}, footer: footer}
	if footer {
		if _, err := io.CopyN(io.Discard, s.in, 8); err != nil {
			return nil, fmt.Errorf("read the magic number: %w", unexpected(err))
		}
	}
	if s.reader, err = ipc.NewReader(s.in, ipc.WithAllocator(alloc), ipc.WithDelayReadSchema(false)); err != nil {
		return nil, fmt.Errorf("read the schema: %w", unexpected(err))
	}
	var r row
	for i := range s.columns {
		s.columns[i] = -1
	}
	for i, field := range s.reader.Schema().Fields() {
		role, wanted := x[field.Name]
		if !wanted {
			r.note(field.Name)
			continue
		}
		if s.columns[role] >= 0 {
			s.close()
			return nil, fmt.Errorf("column %q occurs twice", field.Name)
		}
		s.columns[role] = i
	}
	s.foreign = r.foreign
	return s, nil
}

// unexpected makes the end of the file inside a structure what it is.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *arrowFile) next(ctx context.Context, r *row) (err error) {
	defer contain(&err)
	*r = row{foreign: s.foreign}
	for s.batch == nil || s.at == int(s.batch.NumRows()) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !s.reader.Next() {
			return s.end()
		}
		s.batch, s.at = s.reader.Record(), 0
	}
	for role, i := range s.columns {
		if i >= 0 {
			r.cells[role] = arrowValue(s.batch.Column(i), s.at)
		}
	}
	s.at++
	return nil
}

// end tells the end of the data from that of a file cut short.
func (s *arrowFile) end() error {
	s.batch = nil
	if err := s.reader.Err(); err != nil && err != io.EOF {
		return err
	}
	if !s.footer {
		return io.EOF
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil {
		return err
	}
	if !bytes.HasSuffix(s.in.tail, []byte(arrowMagic)) {
		return fmt.Errorf("the file ends without its footer: %w", io.ErrUnexpectedEOF)
	}
	return io.EOF
}

func (s *arrowFile) close() error {
	var err error
	func() {
		defer contain(&err)
		s.reader.Release()
	}()
	return err
}

// types describes the columns.
func (s *arrowFile) types() []ColumnType {
	var all []ColumnType
	for _, f := range s.reader.Schema().Fields() {
		all = append(all, ColumnType{Name: f.Name, Type: f.Type.String()})
	}
	return all
}

// A tailReader remembers the last bytes it has read.
type tailReader struct {
	in   io.Reader
	tail []byte
}

func (t *tailReader) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	t.tail = append(t.tail, p[max(0, n-len(arrowMagic)):n]...)
	t.tail = append(t.tail[:0], t.tail[max(0, len(t.tail)-len(arrowMagic)):]...)
	return n, err
}

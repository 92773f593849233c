package datasets

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

var utf8BOM = []byte("\xef\xbb\xbf")

// jsonLines reads one object per line. Blank lines are no rows.
type jsonLines struct {
	in    *bufio.Reader
	index index
	limit int
	line  int64
	buf   []byte
}

func (s *jsonLines) next(ctx context.Context, r *row) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		line, err := s.readLine()
		if err != nil {
			var re *RowError
			if errors.As(err, &re) {
				*r = row{}
			}
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if re := parseJSONRow(line, s.index, r); re != nil {
			re.Detail = fmt.Sprintf("line %d: %s", s.line, re.Detail)
			return re
		}
		return nil
	}
}

// readLine returns the next line, valid until the next call. A line over the
// limit is passed over and becomes a row error.
func (s *jsonLines) readLine() ([]byte, error) {
	s.buf = s.buf[:0]
	s.line++
	size := 0
	for {
		part, err := s.in.ReadSlice('\n')
		size += len(part)
		if size <= s.limit {
			s.buf = append(s.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && size > 0:
			err = nil // a last line without its newline
		}
		if err == nil && size > s.limit {
			return nil, &RowError{Reason: TooLarge, Detail: fmt.Sprintf("line %d has %d bytes, want at most %d", s.line, size, s.limit)}
		}
		return s.buf, err
	}
}

// wholeFirstLine reports whether the first line that is not blank is valid JSON,
// as far as the reader's buffer goes.
func wholeFirstLine(in *bufio.Reader) bool {
	head, err := in.Peek(in.Size())
	line, _, found := bytes.Cut(bytes.TrimLeft(head, " \t\r\n"), []byte{'\n'})
	if !found && err == nil {
		return true // longer than the buffer: no pretty-printed object starts like this
	}
	return len(line) == 0 || json.Valid(line)
}

// jsonArray reads the elements of one array, each of which is a row.
type jsonArray struct {
	in    *bufio.Reader
	index index
	limit int
	begun bool
	done  bool
	buf   []byte
}

func (s *jsonArray) next(ctx context.Context, r *row) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if s.done {
		return io.EOF
	}
	if !s.begun {
		s.begun = true
		if _, err := s.in.Discard(1); err != nil { // the bracket that was seen when the file was opened
			return err
		}
		if end, err := s.atEnd(); end || err != nil {
			return err
		}
	}
	delim, err := s.element()
	if err != nil {
		return err
	}
	if re := parseJSONRow(s.buf, s.index, r); re != nil {
		return s.finish(delim, re)
	}
	return s.finish(delim, nil)
}

// finish checks what follows the closing bracket, if delim is one.
func (s *jsonArray) finish(delim byte, re *RowError) error {
	if delim == ']' {
		if err := s.tail(); err != nil {
			return err
		}
	}
	if re != nil {
		return re
	}
	return nil
}

// atEnd reports, as io.EOF, an array without elements.
func (s *jsonArray) atEnd() (bool, error) {
	c, err := s.nonSpace()
	if err != nil {
		return false, truncatedArray(err)
	}
	if c == ']' {
		if err := s.tail(); err != nil {
			return true, err
		}
		return true, io.EOF
	}
	return false, s.in.UnreadByte()
}

// tail checks that only white space follows the array.
func (s *jsonArray) tail() error {
	s.done = true
	switch c, err := s.nonSpace(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("found %q behind the closing bracket of the array, want the end of the file", c)
	}
}

func (s *jsonArray) nonSpace() (byte, error) {
	for {
		c, err := s.in.ReadByte()
		if err != nil || !isJSONSpace(c) {
			return c, err
		}
	}
}

// element copies the next element to s.buf and returns the comma or bracket
// behind it.
func (s *jsonArray) element() (byte, error) {
	s.buf = s.buf[:0]
	depth, inText, escaped := 0, false, false
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return 0, truncatedArray(err)
		}
		switch {
		case escaped:
			escaped = false
		case inText:
			escaped = c == '\\'
			inText = c != '"'
		case c == '"':
			inText = true
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']'):
			return c, nil
		case c == '}' || c == ']':
			depth--
		}
		if len(s.buf) == s.limit {
			return 0, fmt.Errorf("the element has more than %d bytes", s.limit)
		}
		s.buf = append(s.buf, c)
	}
}

func truncatedArray(err error) error {
	if err == io.EOF {
		return fmt.Errorf("the file ends inside its array: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// close leaves the file to its owner.
func (s *jsonLines) close() error { return nil }

// close leaves the file to its owner.
func (s *jsonArray) close() error { return nil }

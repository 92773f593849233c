package datasets

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// inputBuffer is read at a time from text files.
	inputBuffer = 256 << 10
	// maxZstdWindow is the largest window of a .zst file, that of zstd --long=27.
	maxZstdWindow = 128 << 20
	// A table compressed as a whole may decompress to spoolFree bytes and
	// maxExpansion times its size: text comes nowhere near, a bomb far beyond.
	spoolFree    = 64 << 20
	maxExpansion = 1000
)

// A source reads the rows of one file. next fills every field of r, or returns
// io.EOF behind the last row, a *RowError without its position for a row that
// can't be parsed, or a fatal error.
type source interface {
	next(ctx context.Context, r *row) error
	close() error
}

// An input is one open file.
type input struct {
	source
	file        *guardedFile
	spool       *guardedFile // a decompressed copy, nil for none
	spoolNamed  bool         // the copy has a name still, by which it is removed
	unzip       io.Closer    // the decompressor, nil for none
	format      string       // "parquet", "arrow file", "arrow stream", "jsonl", "json array"
	compression string       // "gzip", "zstd", "" for none
}

// openInput finds out what the file at path is, by its first bytes, and opens it.
func openInput(ctx context.Context, path string, opt *Options, x index) (*input, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	in := &input{file: &guardedFile{File: f, ctx: ctx}}
	if err := in.open(path, opt, x); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (in *input) open(path string, opt *Options, x index) error {
	buf, err := in.decompress()
	if err != nil {
		return err
	}
	head, err := buf.Peek(8)
	if err != nil && err != io.EOF {
		return err
	}
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	alloc := opt.allocator(info.Size())
	ext := filepath.Ext(uncompressedName(strings.ToLower(path)))
	switch {
	case bytes.HasPrefix(head, []byte("PAR1")):
		in.format = "parquet"
		if file, e := in.randomAccess(buf); e != nil {
			err = e
		} else {
			in.source, err = openParquet(file, x, alloc)
		}
	case bytes.HasPrefix(head, []byte(arrowMagic)):
		in.format = "arrow file"
		if file, e := in.randomAccess(buf); e != nil {
			err = e
		} else {
			in.source, err = openArrowFile(file, x, alloc)
		}
	case bytes.HasPrefix(head, []byte("\xff\xff\xff\xff")), ext == ".arrows", ext == ".arrow" && len(head) > 0:
		in.format = "arrow stream"
		in.source, err = openArrowStream(buf, x, alloc)
	case bytes.HasPrefix(head, []byte("FEA1")):
		err = fmt.Errorf("is a Feather version 1 file, want Arrow IPC (Feather version 2)")
	case strings.Contains(" .parquet .pq .arrow .ipc .feather ", " "+ext+" "):
		err = fmt.Errorf("begins with %q, want a %s file", head, strings.TrimPrefix(ext, "."))
	default:
		err = in.openJSON(buf, ext, opt, x)
	}
	return err
}

// openJSON tells an array from lines.
func (in *input) openJSON(buf *bufio.Reader, ext string, opt *Options, x index) error {
	head, err := buf.Peek(len(utf8BOM))
	if err != nil && err != io.EOF {
		return err
	}
	switch {
	case bytes.Equal(head, utf8BOM):
		if _, err := buf.Discard(len(utf8BOM)); err != nil {
			return err
		}
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return fmt.Errorf("is UTF-16 text, want UTF-8")
	}
	head, err = buf.Peek(buf.Size())
	if err != nil && err != io.EOF {
		return err
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	isLines := ext == ".jsonl" || ext == ".ndjson"
	switch {
	case bytes.HasPrefix(head, []byte("[")):
		if _, err := buf.Discard(bytes.IndexByte(mustPeek(buf), '[')); err != nil {
			return err
		}
		in.format = "json array"
		in.source = &jsonArray{in: buf, index: x, limit: opt.MaxRowBytes}
		return nil
	case !isLines && len(head) > 0 && head[0] != '{':
		return fmt.Errorf("is neither Parquet, Arrow IPC nor JSON: it begins with %q", head[:min(len(head), 8)])
	case ext == ".json" && !wholeFirstLine(buf):
		return fmt.Errorf("the first line is not a whole object: want a JSON array, or one object per line")
	}
	in.format = "jsonl"
	in.source = &jsonLines{in: buf, index: x, limit: opt.MaxRowBytes}
	return nil
}

// mustPeek returns what buf has buffered.
func mustPeek(buf *bufio.Reader) []byte {
	head, _ := buf.Peek(buf.Buffered())
	return head
}

// decompress puts a decompressor before a file that begins like gzip or zstd.
func (in *input) decompress() (*bufio.Reader, error) {
	buf := bufio.NewReaderSize(in.file, inputBuffer)
	head, err := buf.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		r, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", unexpected(err))
		}
		in.compression, in.unzip = "gzip", r
		return bufio.NewReaderSize(decompressor{r, "gzip"}, inputBuffer), nil
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		r, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		in.compression, in.unzip = "zstd", r.IOReadCloser()
		return bufio.NewReaderSize(decompressor{r, "zstd"}, inputBuffer), nil
	}
	return buf, nil
}

// A decompressor says in its errors that it is one.
type decompressor struct {
	io.Reader
	name string
}

func (d decompressor) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	switch {
	case err == io.ErrUnexpectedEOF:
		err = fmt.Errorf("%s: the file is cut short: %w", d.name, err)
	case err != nil && err != io.EOF:
		err = fmt.Errorf("%s: %w", d.name, err)
	}
	return n, err
}

// randomAccess returns the file for reading at offsets. What is compressed as a
// whole is first decompressed to a temporary file that goes with the input.
func (in *input) randomAccess(buf *bufio.Reader) (*guardedFile, error) {
	if in.compression == "" {
		return in.file, nil
	}
	tmp, err := os.CreateTemp("", "dpo-pipe-*")
	if err != nil {
		return nil, err
	}
	in.spool = &guardedFile{File: tmp, ctx: in.file.ctx}
	// Without a name the file goes with the process, however that ends. Where an
	// open file can't be removed, close does it.
	in.spoolNamed = os.Remove(tmp.Name()) != nil
	info, err := in.file.Stat()
	if err != nil {
		return nil, err
	}
	limit := spoolFree + maxExpansion*info.Size()
	switch n, err := io.Copy(tmp, io.LimitReader(buf, limit+1)); {
	case err != nil:
		return nil, fmt.Errorf("decompress to a temporary file in %s: %w", os.TempDir(), unexpected(err))
	case n > limit:
		return nil, fmt.Errorf("%d bytes decompress to more than %d, want at most %d times as many", info.Size(), limit, maxExpansion)
	}
	return in.spool, nil
}

// setContext makes ctx the one that ends reads.
func (in *input) setContext(ctx context.Context) {
	in.file.ctx = ctx
	if in.spool != nil {
		in.spool.ctx = ctx
	}
}

// close closes what is open. It returns the first error.
func (in *input) close() error {
	var err error
	if in.source != nil {
		err = in.source.close()
	}
	if in.spool != nil {
		in.spool.Close()
		if in.spoolNamed {
			if e := os.Remove(in.spool.Name()); err == nil {
				err = e
			}
		}
	}
	if in.unzip != nil {
		if e := in.unzip.Close(); err == nil {
			err = e
		}
	}
	if e := in.file.Close(); err == nil {
		err = e
	}
	return err
}

// A guardedFile ends a read that goes on behind the end of its context.
type guardedFile struct {
	*os.File
	ctx context.Context // of the current call of Next; reads happen inside it only
	// reads goes up by one where a read begins, and where it ends.
	reads atomic.Int64
}

func (f *guardedFile) Read(p []byte) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	f.reads.Add(1)
	defer f.reads.Add(1)
	return f.File.Read(p)
}

func (f *guardedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	f.reads.Add(1)
	defer f.reads.Add(1)
	return f.File.ReadAt(p, off)
}

// allocator returns what Arrow and Parquet allocate from. A small file is granted
// small buffers, so that a corrupted length is refused before memory is cleared.
func (opt *Options) allocator(fileSize int64) cappedAllocator {
	a := cappedAllocator{memory.NewGoAllocator(), min(maxAllocation, spoolFree+maxExpansion*fileSize)}
	if opt.alloc != nil {
		a.Allocator = opt.alloc
	}
	return a
}

package datasets

import (
	"context"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// parquetBuffer is how much of a column is buffered before its pages.
const parquetBuffer = 64 << 10

// parquetFile reads the needed columns of a Parquet file side by side, one page
// of each in memory, and puts the rows together from the columns' levels. The
// library's own assembly of rows (pqarrow) is not used: it reads nested columns
// in goroutines of its own, where a panic over corrupted data can't be caught,
// and a whole batch of rows at a time. Its calls are watched: they may neither panic nor hang.
type parquetFile struct {
	file    *file.Reader
	watch   watch
	alloc   memory.Allocator
	columns [numColumns]*parquetNode // nil for absent
	foreign int                      // as row.foreign

	group   int               // next row group
	left    int64             // rows left in the current one
	cursors [][]*parquetValue // of the current row group, by column
}

// openParquet reads the footer and finds the columns.
func openParquet(in *guardedFile, x index, alloc memory.Allocator) (*parquetFile, error) {
	s := &parquetFile{watch: watch{&in.reads, patience}, alloc: alloc}
	return s, s.watch.call(func() (err error) {
		props := parquet.NewReaderProperties(alloc)
		props.BufferedStreamEnabled = true
		props.BufferSize = parquetBuffer
		if s.file, err = file.NewParquetReader(in, file.WithReadProps(props)); err != nil {
			return err
		}
		return s.find(x)
	})
}

// find builds the tree of every column in x.
func (s *parquetFile) find(x index) error {
	var r row
	root := s.file.MetaData().Schema.Root()
	var b parquetBuilder
	for i := range root.NumFields() {
		field := root.Field(i)
		role, wanted := x[field.Name()]
		if !wanted {
			r.note(field.Name())
			b.leaf += countLeaves(field, 0)
			continue
		}
		if s.columns[role] != nil {
			return fmt.Errorf("column %q occurs twice", field.Name())
		}
		node, err := b.column(field)
		if err != nil {
			return fmt.Errorf("column %q: %w", field.Name(), err)
		}
		s.columns[role] = node
	}
	s.foreign = r.foreign
	return nil
}

// countLeaves returns how many columns the file stores for n.
func countLeaves(n schema.Node, depth int) int {
	group, ok := n.(*schema.GroupNode)
	if !ok || depth > maxParquetDepth {
		return 1
	}
	total := 0
	for i := range group.NumFields() {
		total += countLeaves(group.Field(i), depth+1)
	}
	return total
}

func (s *parquetFile) next(ctx context.Context, r *row) (err error) {
	defer contain(&err)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for s.left == 0 {
		if err := s.endGroup(); err != nil {
			return err
		}
		if s.group == s.file.NumRowGroups() {
			return io.EOF
		}
		if err := s.openGroup(); err != nil {
			return err
		}
	}
	*r = row{foreign: s.foreign}
	for role, node := range s.columns {
		if node == nil {
			continue
		}
		v, err := node.row(s.cursors[role])
		if err != nil {
			return fmt.Errorf("column %q: row group %d: %w", node.name, s.group-1, err)
		}
		r.cells[role] = v
	}
	s.left--
	return nil
}

// openGroup goes to the next row group.
func (s *parquetFile) openGroup() error {
	group := s.file.RowGroup(s.group)
	s.left = group.NumRows()
	s.cursors = make([][]*parquetValue, len(s.columns))
	for role, node := range s.columns {
		if node == nil {
			continue
		}
		for _, leaf := range node.leaves {
			chunk, err := group.MetaData().ColumnChunk(leaf)
			if err != nil {
				return fmt.Errorf("column %q: row group %d: %w", node.name, s.group, err)
			}
			if _, err := compress.GetCodec(chunk.Compression()); err != nil {
				return fmt.Errorf("column %q: row group %d: codec %s is not supported, want none, snappy, gzip, brotli or zstd",
					node.name, s.group, codecName(chunk.Compression()))
			}
			pages, err := group.GetColumnPageReader(leaf)
			if err != nil {
				return fmt.Errorf("column %q: row group %d: %w", node.name, s.group, err)
			}
			s.cursors[role] = append(s.cursors[role], s.cursor(pages, leaf))
		}
	}
	s.group++
	return nil
}

// cursor reads a leaf column of the group from its pages.
func (s *parquetFile) cursor(pages file.PageReader, leaf int) *parquetValue {
	column := s.file.MetaData().Schema.Column(leaf)
	return newParquetValue(file.NewColumnReader(column, &checkedPages{PageReader: pages, column: column}, s.alloc, nil), s.watch)
}

// endGroup checks that the columns hold no more than their rows.
func (s *parquetFile) endGroup() error {
	for role, cursors := range s.cursors {
		for _, c := range cursors {
			if more, err := c.peek(); more || err != nil {
				if err == nil {
					err = fmt.Errorf("values behind the last row")
				}
				return fmt.Errorf("column %q: row group %d: %w", s.columns[role].name, s.group-1, err)
			}
		}
	}
	s.cursors = nil
	return nil
}

// codecName names a codec, also one that the library doesn't know.
func codecName(c compress.Compression) string {
	if name, ok := map[compress.Compression]string{3: "LZO", 5: "LZ4", 7: "LZ4_RAW"}[c]; ok {
		return name
	}
	return fmt.Sprintf("%d", int32(c))
}

// close leaves the file to its owner.
func (s *parquetFile) close() error { return nil }

// rows returns the number of rows the footer states.
func (s *parquetFile) rows() int64 { return s.file.NumRows() }

// types describes the columns.
func (s *parquetFile) types() []ColumnType {
	var all []ColumnType
	root := s.file.MetaData().Schema.Root()
	for i := range root.NumFields() {
		all = append(all, ColumnType{Name: root.Field(i).Name(), Type: parquetType(root.Field(i), 0)})
	}
	return all
}

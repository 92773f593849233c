package datasets

import (
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
)

// parquetBatch is how many values of a column are decoded at a time.
const parquetBatch = 64

// A parquetValue is a cursor over one leaf column of a row group: its levels,
// one per entry, and its values, one per entry at the highest definition level.
type parquetValue struct {
	reader   file.ColumnChunkReader
	watch    watch
	maxDef   int16
	def, rep []int16
	n, at    int // entries decoded, next of them
	taken    int // entries of the current row that were consumed
	value    int // next value
	fill     func() (total int64, err error)
	take     func(i int) value
}

func newParquetValue(reader file.ColumnChunkReader, w watch) *parquetValue {
	c := &parquetValue{
		reader: reader, watch: w, maxDef: reader.Descriptor().MaxDefinitionLevel(),
		def: make([]int16, parquetBatch), rep: make([]int16, parquetBatch),
	}
	for i := range c.def {
		c.def[i] = c.maxDef // stays where the column stores no definition levels
	}
	switch r := reader.(type) {
	case *file.ByteArrayColumnChunkReader:
		bind(c, r.ReadBatch, func(b parquet.ByteArray) value { return value{kind: text, str: string(b)} })
	case *file.Int32ColumnChunkReader:
		bind(c, r.ReadBatch, func(n int32) value { return intValue(int64(n)) })
	case *file.Int64ColumnChunkReader:
		bind(c, r.ReadBatch, intValue)
	case *file.Float32ColumnChunkReader:
		bind(c, r.ReadBatch, func(x float32) value { return floatValue(float64(x), 32) })
	case *file.Float64ColumnChunkReader:
		bind(c, r.ReadBatch, func(x float64) value { return floatValue(x, 64) })
	case *file.BooleanColumnChunkReader:
		bind(c, r.ReadBatch, func(bool) value { return value{kind: boolean} })
	case *file.FixedLenByteArrayColumnChunkReader:
		bind(c, r.ReadBatch, func(parquet.FixedLenByteArray) value { return value{kind: other, str: "of fixed-size bytes"} })
	case *file.Int96ColumnChunkReader:
		bind(c, r.ReadBatch, func(parquet.Int96) value { return value{kind: other, str: "a timestamp"} })
	}
	return c
}

// bind makes c read values of one physical type.
func bind[T any](c *parquetValue, read func(int64, []T, []int16, []int16) (int64, int, error), convert func(T) value) {
	values := make([]T, parquetBatch)
	c.fill = func() (int64, error) {
		total, _, err := read(parquetBatch, values, c.def, c.rep)
		return total, err
	}
	c.take = func(i int) value { return convert(values[i]) }
}

// peek decodes the next entry and reports whether there is one.
func (c *parquetValue) peek() (bool, error) {
	if c.at < c.n {
		return true, nil
	}
	var total int64
	err := c.watch.call(func() (err error) {
		if total, err = c.fill(); err == nil {
			err = c.reader.Err()
		}
		return err
	})
	if err != nil && err != io.EOF {
		return false, err
	}
	c.n, c.at, c.value = int(total), 0, 0
	return total > 0, nil
}

// next consumes an entry and returns its value, null where it has none.
func (c *parquetValue) next() (value, error) {
	if more, err := c.peek(); err != nil || !more {
		if err == nil {
			err = fmt.Errorf("fewer values than rows: %w", io.ErrUnexpectedEOF)
		}
		return value{}, err
	}
	if c.taken++; c.taken > maxItems {
		return value{}, errTooManyItems
	}
	c.at++
	if c.def[c.at-1] < c.maxDef {
		return value{kind: null}, nil
	}
	c.value++
	return c.take(c.value - 1), nil
}

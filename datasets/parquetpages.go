package datasets

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/schema"
)

// checkedPages passes on the pages of a column chunk whose levels are all there. The
// library would wait for levels that a page lacks without end.
type checkedPages struct {
	file.PageReader
	column *schema.Column
	err    error
}

// Next fetches the next page.
func (p *checkedPages) Next() bool {
	if p.err != nil || !p.PageReader.Next() {
		return false
	}
	p.err = p.check(p.Page())
	return p.err == nil
}

// Err returns why there is no next page.
func (p *checkedPages) Err() error {
	if p.err != nil {
		return p.err
	}
	return p.PageReader.Err()
}

func (p *checkedPages) check(page file.Page) error {
	levels := []int16{p.column.MaxRepetitionLevel(), p.column.MaxDefinitionLevel()}
	data := page.Data()
	switch page := page.(type) {
	case *file.DataPageV1:
		for i, encoding := range []parquet.Encoding{page.RepetitionLevelEncoding(), page.DefinitionLevelEncoding()} {
			if levels[i] == 0 {
				continue
			}
			if encoding != parquet.Encodings.RLE {
				return fmt.Errorf("levels are encoded as %v, want RLE", encoding)
			}
			if len(data) < 4 {
				return fmt.Errorf("a page of %d bytes has no levels", len(data))
			}
			size := uint64(binary.LittleEndian.Uint32(data))
			if data = data[4:]; size > uint64(len(data)) {
				return fmt.Errorf("levels take %d bytes of a page that has %d", size, len(data))
			}
			if err := checkLevels(data[:size], levels[i], page.NumValues()); err != nil {
				return err
			}
			data = data[size:]
		}
	case *file.DataPageV2:
		for i, size := range []int32{page.RepetitionLevelByteLen(), page.DefinitionLevelByteLen()} {
			if size < 0 || int(size) > len(data) {
				return fmt.Errorf("levels take %d bytes of a page that has %d", size, len(data))
			}
			if levels[i] > 0 {
				if err := checkLevels(data[:size], levels[i], page.NumValues()); err != nil {
					return err
				}
			}
			data = data[size:]
		}
	}
	return nil
}

// checkLevels counts levels of at most top, which are stored as runs: a number, then, where it
// is even, one level that occurs half as often or, where it is odd, half as many groups of
// eight packed levels.
func checkLevels(runs []byte, top int16, want int32) error {
	width := uint64(bits.Len16(uint16(top)))
	have := uint64(0)
	for have < uint64(want) {
		run, n := binary.Uvarint(runs)
		if n <= 0 || run>>1 > 1<<32 {
			return fmt.Errorf("a page has %d levels, want %d", have, want)
		}
		size, levels := (width+7)/8, run>>1
		if run&1 == 1 {
			size, levels = run>>1*width, run>>1*8
		}
		if levels == 0 || size > uint64(len(runs)-n) {
			return fmt.Errorf("a page has %d levels, want %d", have, want)
		}
		have, runs = have+levels, runs[n+int(size):]
	}
	return nil
}

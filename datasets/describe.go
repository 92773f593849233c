package datasets

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A ColumnType is a column of a file as the file declares it.
type ColumnType struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// A Description says what a data file is.
type Description struct {
	File        string       `json:"file"`
	Format      string       `json:"format"`      // "parquet", "arrow file", "arrow stream", "jsonl", "json array"
	Compression string       `json:"compression"` // of the whole file: "gzip", "zstd" or ""
	Rows        int64        `json:"rows"`        // as the footer states, -1 where the format has none
	Columns     []ColumnType `json:"columns"`     // nil for JSON, whose rows declare nothing
	Looked      int64        `json:"looked"`      // rows looked at for what follows
	Layouts     []string     `json:"layouts"`     // of the usable ones, in the order met
	Sample      []Pair       `json:"sample"`      // the usable ones
	Dropped     Tally        `json:"dropped"`     // the others
}

// Describe looks at the first n rows of the file at path.
func Describe(ctx context.Context, path string, opt Options, n int) (Description, error) {
	d := Description{File: path, Rows: -1}
	x, err := opt.Columns.index()
	if err != nil {
		return d, err
	}
	in, err := openInput(ctx, path, &opt, x)
	if err != nil {
		return d, fmt.Errorf("datasets: %s: %w", path, err)
	}
	defer in.close()
	d.Format, d.Compression = in.format, in.compression
	if s, ok := in.source.(interface{ types() []ColumnType }); ok {
		d.Columns = s.types()
	}
	if s, ok := in.source.(interface{ rows() int64 }); ok {
		d.Rows = s.rows()
	}
	return d, d.look(ctx, in, opt.Columns.names(), n)
}

// look reads n rows.
func (d *Description) look(ctx context.Context, in *input, names [numColumns]string, n int) error {
	seen := map[string]bool{}
	for ; d.Looked < int64(n); d.Looked++ {
		var r row
		p := Pair{Row: d.Looked, FileRow: d.Looked, File: d.File}
		err := in.next(ctx, &r)
		var re *RowError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &re):
		case err != nil:
			return fmt.Errorf("datasets: %s row %d: %w", d.File, d.Looked, err)
		default:
			re = pairOf(&r, names, &p)
		}
		if re != nil {
			re.File, re.Row = d.File, d.Looked
			d.Dropped.Add(re)
			continue
		}
		d.Sample = append(d.Sample, p)
		if name := layoutName(&r, &p); !seen[name] {
			seen[name] = true
			d.Layouts = append(d.Layouts, name)
		}
	}
	return nil
}

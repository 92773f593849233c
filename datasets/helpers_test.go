package datasets

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readAll reads paths to the end.
func readAll(t testing.TB, opt Options, paths ...string) ([]Pair, Tally) {
	t.Helper()
	pairs, tally, err := read(t.Context(), opt, paths...)
	if err != nil {
		t.Fatal(err)
	}
	return pairs, tally
}

// read reads paths to the end or the first fatal error.
func read(ctx context.Context, opt Options, paths ...string) (pairs []Pair, tally Tally, err error) {
	r, err := Open(paths, opt)
	if err != nil {
		return nil, tally, err
	}
	defer func() {
		if e := r.Close(); err == nil {
			err = e
		}
	}()
	for {
		p, err := r.Next(ctx)
		var re *RowError
		switch {
		case err == io.EOF:
			return pairs, tally, nil
		case errors.As(err, &re):
			tally.Add(re)
		case err != nil:
			return pairs, tally, err
		default:
			pairs = append(pairs, p)
		}
	}
}

// rawRows reads the rows of one file before their layout is looked at.
func rawRows(t *testing.T, columns Columns, path string) []row {
	t.Helper()
	opt := DefaultOptions()
	opt.Columns = columns
	x, err := columns.index()
	if err != nil {
		t.Fatal(err)
	}
	in, err := openInput(t.Context(), path, &opt, x)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	var rows []row
	for {
		var r row
		err := in.next(t.Context(), &r)
		if err == io.EOF {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, normalRow(r))
	}
}

// normalRow makes up for what a table can't say: that an object lacks a field,
// and in what order its fields are.
func normalRow(r row) row {
	for i, v := range r.cells {
		r.cells[i] = normalValue(v)
	}
	return r
}

func normalValue(v value) value {
	type field struct {
		key  string
		item value
	}
	var fields []field
	for i, item := range v.items {
		f := field{item: normalValue(item)}
		if v.kind == object {
			f.key = v.keys[i]
		}
		if v.kind == list || item.kind != null {
			fields = append(fields, f)
		}
	}
	slices.SortStableFunc(fields, func(a, b field) int { return strings.Compare(a.key, b.key) })
	v = value{kind: v.kind, str: v.str}
	for _, f := range fields {
		v.items = append(v.items, f.item)
		if v.kind == object {
			v.keys = append(v.keys, f.key)
		}
	}
	return v
}

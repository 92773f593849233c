package datasets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// A Reader yields the pairs of its files in order. It holds one file open and
// memory that does not grow with the data. It is not safe for concurrent use.
type Reader struct {
	files    []string
	paths    []int // which path each file is of
	findings []string
	opt      Options
	index    index
	names    [numColumns]string

	in      *input // nil between files
	file    int    // index of the current or next file
	row     row
	rows    int64 // rows met so far, over all files
	fileRow int64 // rows met in the current file
	pathRow int64 // rows met in the current file and earlier ones of its path
	err     error // sticky
}

// Open finds the files that paths name: files, globs, and folders with all their
// sub-folders. Paths are read in the order given, globs and folders in the order
// of names. Hidden and temporary files are passed over. In folders, files that
// are no data by their name are a finding; a file named itself is opened whatever
// its name. The files' contents are first looked at by Next.
func Open(paths []string, opt Options) (*Reader, error) {
	x, err := opt.Columns.index()
	if err != nil {
		return nil, err
	}
	if opt.MaxRowBytes <= 0 {
		return nil, fmt.Errorf("datasets: MaxRowBytes is %d, want a number > 0", opt.MaxRowBytes)
	}
	if err := checkMix(opt.Mix, len(paths)); err != nil {
		return nil, err
	}
	r := &Reader{opt: opt, index: x, names: opt.Columns.names()}
	if len(paths) == 0 {
		_, _, err := expand(nil)
		return nil, err
	}
	for i := range paths {
		files, findings, err := expand(paths[i : i+1])
		if err != nil {
			return nil, err
		}
		r.files, r.findings = append(r.files, files...), append(r.findings, findings...)
		r.paths = append(r.paths, slices.Repeat([]int{i}, len(files))...)
	}
	return r, nil
}

// checkMix refuses shares that are not one for each of n paths, or out of range.
func checkMix(mix []Share, n int) error {
	if mix != nil && len(mix) != n {
		return fmt.Errorf("datasets: the mix has %d shares, want one for each of %d paths", len(mix), n)
	}
	for i, s := range mix {
		if !(s.Weight >= 0) || math.IsInf(s.Weight, 0) || s.Limit < 0 {
			return fmt.Errorf("datasets: share %d of the mix has weight %v and limit %d, want a finite weight >= 0 and a limit >= 0", i, s.Weight, s.Limit)
		}
	}
	return nil
}

// share is that of the current file's path.
func (r *Reader) share() Share {
	if r.opt.Mix == nil {
		return whole
	}
	return r.opt.Mix[r.paths[r.file]]
}

// Files returns the files in the order of reading.
func (r *Reader) Files() []string { return r.files }

// Findings returns what of the paths was left out, one sentence each.
func (r *Reader) Findings() []string { return r.findings }

// Next returns the next pair. At the end of the last file the error is io.EOF.
// A *RowError refuses one row, and Next may be called for those behind it. Any
// other error is fatal, is returned by all later calls, and says file and row;
// where ctx has ended it wraps its cause, and reading can't go on.
func (r *Reader) Next(ctx context.Context) (Pair, error) {
	if r.err != nil {
		return Pair{}, r.err
	}
	err := r.nextRow(ctx)
	p := Pair{Row: r.rows, FileRow: r.fileRow}
	var re *RowError
	switch {
	case errors.As(err, &re):
	case err != nil:
		r.err = err
		return Pair{}, err
	default:
		p.File = r.files[r.file]
		if r.opt.PromptsAlone && r.row.cells[colChosen].kind == absent && r.row.cells[colRejected].kind == absent {
			re = promptOf(&r.row, r.names, &p)
		} else {
			re = pairOf(&r.row, r.names, &p)
		}
		p.Weight *= float32(r.share().Weight)
	}
	r.rows++
	r.fileRow++
	r.pathRow++
	if re != nil {
		re.File, re.Row = r.files[r.file], p.FileRow
		return Pair{}, re
	}
	return p, nil
}

// nextRow fills r.row with the next row of the next file that has one.
func (r *Reader) nextRow(ctx context.Context) error {
	for r.file < len(r.files) {
		path := r.files[r.file]
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if limit := r.share().Limit; limit > 0 && r.pathRow >= limit {
			if err := r.nextFile(); err != nil {
				return err
			}
			continue
		}
		if r.in == nil {
			in, err := openInput(ctx, path, &r.opt, r.index)
			if err != nil {
				return fmt.Errorf("datasets: %s: %w", path, err)
			}
			r.in, r.fileRow = in, 0
		}
		r.in.setContext(ctx)
		err := r.in.next(ctx, &r.row)
		var re *RowError
		switch {
		case err == nil || errors.As(err, &re):
			return err
		case err != io.EOF:
			return fmt.Errorf("datasets: %s row %d: %w", path, r.fileRow, err)
		}
		if err := r.nextFile(); err != nil {
			return err
		}
	}
	return io.EOF
}

// nextFile closes the current file and turns to the one behind it.
func (r *Reader) nextFile() error {
	if err := r.closeFile(); err != nil {
		return fmt.Errorf("datasets: %s: %w", r.files[r.file], err)
	}
	r.file++
	if r.file < len(r.files) && r.paths[r.file] != r.paths[r.file-1] {
		r.pathRow = 0
	}
	return nil
}

func (r *Reader) closeFile() error {
	if r.in == nil {
		return nil
	}
	in := r.in
	r.in = nil
	return in.close()
}

// Close ends the reading. Next then returns an error.
func (r *Reader) Close() error {
	if r.err == nil {
		r.err = errors.New("datasets: the reader is closed")
	}
	if err := r.closeFile(); err != nil {
		return fmt.Errorf("datasets: %s: %w", r.files[r.file], err)
	}
	return nil
}

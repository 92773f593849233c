package refcache

import (
	"path/filepath"
	"slices"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// Weight reads the weight of row i alone. It panics where i is out of range.
func (r *Reader) Weight(i int64) (weight float32, err error) {
	err = r.with(i, func(p *part, b *batch, k int) error {
		raw, err := r.bytes(p, b, colWeight, k)
		if err == nil {
			weight = weightOf(raw)
		}
		return err
	})
	return weight, err
}

// PartOf returns the number of the part that holds the n rows from row from on and no
// others; ok is false where there is none.
func (r *Reader) PartOf(from, n int64) (part int, ok bool) {
	part, ok = slices.BinarySearch(r.ends, from+n)
	return part, ok && r.manifest.Parts[part].Rows == n
}

// LinkPart makes part n of a finished cache the next part, as WritePart would with its
// rows: the file gets a second name and is neither read nor written. The caller vouches
// for its bytes. linked is false, and nothing was done, where the file would not be the
// same or the file system has no links.
func (w *Writer) LinkPart(from *Reader, n int, position Position) (linked bool, err error) {
	m := &from.manifest
	if m.shape() != w.manifest.shape() || m.BatchRows != w.manifest.BatchRows {
		return false, nil
	}
	e := entry{Part: m.Parts[n], Position: position.clone()}
	e.Part.Name, e.Part.SourceEnd = w.manifest.partName(w.Parts()), position.Rows
	var row Row
	for i := from.ends[n] - e.Part.Rows; i < from.ends[n]; i++ {
		if err := from.Ids(i, &row); err != nil {
			return false, err
		}
		e.count(&row)
	}
	if atomicfile.Link(filepath.Join(from.dir, m.Parts[n].Name), filepath.Join(w.dir, e.Part.Name)) != nil {
		return false, nil // the rows can still be written
	}
	return true, w.append(e)
}

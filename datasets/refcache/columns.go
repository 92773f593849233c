package refcache

import (
	"fmt"
	"iter"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// The columns of a part, in the order they are stored. The format's names and types
// never change.
const (
	colID = iota
	colPrompt
	colChosen
	colRejected
	colChosenLogps
	colRejectedLogps
	colChosenFeatures
	colRejectedFeatures
	colWeight
	colPromptKey
	numColumns
)

var columnNames = [numColumns]string{
	"pair_id", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_ref_logps", "rejected_ref_logps",
	"chosen_features", "rejected_features", "weight", "prompt_key",
}

// Bytes of the columns that hold hashes.
const (
	idBytes  = len(datasets.ID{})
	keyBytes = len(Row{}.PromptKey)
)

// shape is what the rows of a part look like.
type shape struct {
	d     int
	dtype DType
}

// columns lists the columns that a part has: all, or without features those beside them.
func (s shape) columns() iter.Seq[int] {
	return func(yield func(int) bool) {
		for c := range numColumns {
			if (s.dtype != None || !isFeatures(c)) && !yield(c) {
				return
			}
		}
	}
}

func isFeatures(c int) bool { return c == colChosenFeatures || c == colRejectedFeatures }

// isList reports whether each row of column c is a list.
func isList(c int) bool { return c != colID && c != colWeight && c != colPromptKey }

// width returns the bytes of one element of column c: of one list item, or of a row.
func (s shape) width(c int) int {
	switch c {
	case colID:
		return idBytes
	case colPromptKey:
		return keyBytes
	case colChosenFeatures, colRejectedFeatures:
		return s.d * s.dtype.Size()
	default:
		return 4
	}
}

// Record batches bound what writing holds in memory beside the rows themselves: a batch
// has at most maxBatchRows rows, and fewer where a token's features are wide, down to one.
const (
	maxBatchRows = 64
	batchBudget  = 1 << 14
)

// batchRows returns the rows of a record batch.
func (s shape) batchRows() int {
	return min(maxBatchRows, max(1, batchBudget/max(1, s.width(colChosenFeatures))))
}

// buffers returns how many Arrow buffers and field nodes column c has: a validity bitmap and
// values for a plain one; a bitmap and offsets more for a list, a bitmap more for the
// fixed-size list inside.
func buffers(c int) (bufs, nodes int) {
	switch {
	case !isList(c):
		return 2, 1
	case isFeatures(c):
		return 5, 3
	default:
		return 4, 2
	}
}

// types returns the name of each column's type as [describeField] gives it.
func (s shape) types() [numColumns]string {
	values := map[DType]string{F16: "float16", BF16: "uint16", F32: "float32"}[s.dtype]
	features := fmt.Sprintf("list<%s[%d]>", values, s.d)
	return [numColumns]string{
		fmt.Sprintf("binary[%d]", idBytes), "list<int32>", "list<int32>", "list<int32>", "list<float32>", "list<float32>",
		features, features, "float32", fmt.Sprintf("binary[%d]", keyBytes),
	}
}

// schema returns the Arrow schema of a part.
func (s shape) schema() *arrow.Schema {
	ids := arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int32)
	logps := arrow.ListOfNonNullable(arrow.PrimitiveTypes.Float32)
	features := arrow.ListOfNonNullable(arrow.FixedSizeListOfNonNullable(int32(s.d), s.dtype.arrow()))
	types := [numColumns]arrow.DataType{
		&arrow.FixedSizeBinaryType{ByteWidth: idBytes}, ids, ids, ids, logps, logps, features, features, arrow.PrimitiveTypes.Float32,
		&arrow.FixedSizeBinaryType{ByteWidth: keyBytes},
	}
	var fields []arrow.Field
	for c := range s.columns() {
		field := arrow.Field{Name: columnNames[c], Type: types[c]}
		if isFeatures(c) {
			field.Metadata = s.dtype.metadata()
		}
		fields = append(fields, field)
	}
	return arrow.NewSchema(fields, nil)
}

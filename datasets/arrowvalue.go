package datasets

import (
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// An itemBudget is how many list items a row may still have.
type itemBudget int

// value copies element i of a. It panics where the row has too many items, as the
// library does where an offset leads out of the array; contain makes it an error.
func (left *itemBudget) value(a arrow.Array, i int) value {
	if a.IsNull(i) {
		return value{kind: null}
	}
	switch a := a.(type) {
	case array.StringLike:
		return value{kind: text, str: strings.Clone(a.Value(i))}
	case *array.Binary:
		return value{kind: text, str: string(a.Value(i))}
	case *array.LargeBinary:
		return value{kind: text, str: string(a.Value(i))}
	case *array.BinaryView:
		return value{kind: text, str: string(a.Value(i))}
	case *array.Boolean:
		return value{kind: boolean}
	case *array.Dictionary:
		return left.value(a.Dictionary(), a.GetValueIndex(i))
	case array.ExtensionArray:
		return left.value(a.Storage(), i)
	case *array.Struct:
		return left.object(a, i)
	case array.ListLike:
		return left.list(a, i)
	}
	return arrowNumber(a, i)
}

func (left *itemBudget) object(a *array.Struct, i int) value {
	v := value{kind: object}
	for f, field := range a.DataType().(*arrow.StructType).Fields() {
		v.keys = append(v.keys, field.Name)
		v.items = append(v.items, left.value(a.Field(f), i))
	}
	return v
}

func (left *itemBudget) list(a array.ListLike, i int) value {
	start, end := a.ValueOffsets(i)
	if end-start > int64(*left) {
		panic(errTooManyItems)
	}
	*left -= itemBudget(end - start)
	v := value{kind: list, items: make([]value, 0, end-start)}
	for j := start; j < end; j++ {
		v.items = append(v.items, left.value(a.ListValues(), int(j)))
	}
	return v
}

func arrowNumber(a arrow.Array, i int) value {
	switch a := a.(type) {
	case *array.Int8:
		return intValue(int64(a.Value(i)))
	case *array.Int16:
		return intValue(int64(a.Value(i)))
	case *array.Int32:
		return intValue(int64(a.Value(i)))
	case *array.Int64:
		return intValue(a.Value(i))
	case *array.Uint8:
		return uintValue(uint64(a.Value(i)))
	case *array.Uint16:
		return uintValue(uint64(a.Value(i)))
	case *array.Uint32:
		return uintValue(uint64(a.Value(i)))
	case *array.Uint64:
		return uintValue(a.Value(i))
	case *array.Float32:
		return floatValue(float64(a.Value(i)), 32)
	case *array.Float64:
		return floatValue(a.Value(i), 64)
	}
	return value{kind: other, str: "of type " + a.DataType().String()}
}

func intValue(n int64) value   { return value{kind: number, str: strconv.FormatInt(n, 10)} }
func uintValue(n uint64) value { return value{kind: number, str: strconv.FormatUint(n, 10)} }

// floatValue gives the fewest digits that name x, as JSON writers do, so that a
// float32 reads as in JSON.
func floatValue(x float64, bits int) value {
	return value{kind: number, str: strconv.FormatFloat(x, 'g', -1, bits)}
}

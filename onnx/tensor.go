package onnx

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

func decodeTensor(f field, t *Tensor) error {
	var entries [][2]string
	location := int64(0)
	err := f.each("tensor", func(f field) error {
		switch f.num {
		case tensorDims:
			return f.ints(&t.Dims, "tensor dims")
		case tensorType:
			t.DType = DType(f.val)
			return f.want(protowire.VarintType, "tensor data_type")
		case tensorName:
			return f.string(&t.Name, "tensor name")
		case tensorRaw:
			t.data = f.b
			return f.want(protowire.BytesType, "tensor raw_data")
		case tensorExternal:
			return decodeEntry(f, &entries)
		case tensorLocation:
			return f.int(&location, "tensor data_location")
		}
		t.extra = append(t.extra, f.raw...)
		return nil
	})
	if err != nil {
		return err
	}
	if location == locationExternal {
		t.External, err = newExternal(f, t.Name, entries)
	}
	return err
}

func decodeEntry(f field, dst *[][2]string) error {
	var kv [2]string
	if err := f.want(protowire.BytesType, "external_data"); err != nil {
		return err
	}
	err := f.each("external_data", func(f field) error {
		switch f.num {
		case entryKey:
			return f.string(&kv[0], "external_data key")
		case entryValue:
			return f.string(&kv[1], "external_data value")
		}
		return nil
	})
	*dst = append(*dst, kv)
	return err
}

func newExternal(f field, name string, entries [][2]string) (*External, error) {
	x := &External{Length: -1}
	for _, kv := range entries {
		var err error
		switch kv[0] {
		case "location":
			x.Location = kv[1]
		case "offset":
			x.Offset, err = strconv.ParseInt(kv[1], 10, 64)
		case "length":
			x.Length, err = strconv.ParseInt(kv[1], 10, 64)
		default:
			x.extra = append(x.extra, kv)
		}
		if err != nil || x.Offset < 0 || x.Length < -1 {
			return nil, f.errorf("tensor %q has external %s %q, want a number of bytes", name, kv[0], kv[1])
		}
	}
	if x.Location == "" {
		return nil, f.errorf("tensor %q is external without a location", name)
	}
	return x, nil
}

func decodeValue(f field, v *ValueInfo) error {
	return f.each("value", func(f field) error {
		switch f.num {
		case valueName:
			return f.string(&v.Name, "value name")
		case valueType:
			if err := f.want(protowire.BytesType, "value type"); err != nil {
				return err
			}
			v.typ = f.b
			return v.decodeType(f.message)
		}
		v.extra = append(v.extra, f.raw...)
		return nil
	})
}

// decodeType reads element type and shape where the value is a tensor.
func (v *ValueInfo) decodeType(m message) error {
	return m.each("type", func(f field) error {
		if f.num != typeTensor {
			return nil
		}
		return f.each("tensor type", func(f field) error {
			switch f.num {
			case tensorTypeElem:
				v.DType = DType(f.val)
				return f.want(protowire.VarintType, "elem_type")
			case tensorTypeShape:
				v.Shape = []Dim{}
				return f.each("shape", v.decodeDim)
			}
			return nil
		})
	})
}

func (v *ValueInfo) decodeDim(f field) error {
	if f.num != shapeDim {
		return nil
	}
	d := Dim{Size: -1}
	err := f.each("dimension", func(f field) error {
		switch f.num {
		case dimValue:
			return f.int(&d.Size, "dim_value")
		case dimParam:
			return f.string(&d.Name, "dim_param")
		}
		return nil
	})
	v.Shape = append(v.Shape, d)
	return err
}

// Bytes returns the elements, little-endian, row-major, packed. Where the file
// holds them so they are a slice of it and must not be changed; values in the
// typed fields of the format are converted. The length is checked against the
// type and dimensions.
func (t *Tensor) Bytes() ([]byte, error) {
	want, err := t.size()
	if err != nil {
		return nil, err
	}
	b := t.data
	if b == nil && t.External != nil {
		return nil, fmt.Errorf("onnx: tensor %q lies in %q, which is not loaded", t.Name, t.External.Location)
	}
	if len(b) == 0 && want > 0 {
		if b, err = t.typed(); err != nil {
			return nil, err
		}
	}
	if int64(len(b)) != want {
		return nil, fmt.Errorf("onnx: tensor %q %s%v holds %d bytes, want %d", t.Name, t.DType, t.Dims, len(b), want)
	}
	return b, nil
}

// typed converts float_data, int32_data, int64_data, double_data and
// uint64_data, of which a tensor uses the one that its type calls for.
func (t *Tensor) typed() ([]byte, error) {
	out := []byte{}
	err := message{b: t.extra}.each("tensor", func(f field) error {
		switch f.num {
		case tensorFloats, tensorFloat64s:
			if f.typ == protowire.BytesType { // packed: the same layout
				out = append(out, f.b...)
				return nil
			}
			out = binary.LittleEndian.AppendUint64(out, f.val)
			if f.num == tensorFloats {
				out = out[:len(out)-4]
			}
			return nil
		case tensorInt32s, tensorInt64s, tensorUint64s:
			var v []int64
			if err := f.ints(&v, "tensor data"); err != nil {
				return err
			}
			for _, x := range v {
				out = appendInt(out, x, t.DType.Bits())
			}
		}
		return nil
	})
	return out, err
}

// appendInt appends the low bits of x; elements of less than a byte come packed,
// one byte in each entry.
func appendInt(dst []byte, x int64, bits int64) []byte {
	switch bits {
	case 64:
		return binary.LittleEndian.AppendUint64(dst, uint64(x))
	case 32:
		return binary.LittleEndian.AppendUint32(dst, uint32(x))
	case 16:
		return binary.LittleEndian.AppendUint16(dst, uint16(x))
	}
	return append(dst, byte(x))
}

// ints returns the elements of an integer tensor.
func (t *Tensor) ints() ([]int64, error) {
	b, err := t.Bytes()
	if err != nil {
		return nil, err
	}
	var v []int64
	switch t.DType {
	case Int64:
		for ; len(b) > 0; b = b[8:] {
			v = append(v, int64(binary.LittleEndian.Uint64(b)))
		}
	case Int32:
		for ; len(b) > 0; b = b[4:] {
			v = append(v, int64(int32(binary.LittleEndian.Uint32(b))))
		}
	default:
		return nil, fmt.Errorf("onnx: tensor %q has type %s, want int32 or int64", t.Name, t.DType)
	}
	return v, nil
}

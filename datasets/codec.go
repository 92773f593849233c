package datasets

import (
	"fmt"

	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// The library's codecs for snappy and zstd make room for what the compressed data says it
// becomes, up to gigabytes, instead of what the page says. These refuse to.
func init() {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		panic(fmt.Sprintf("datasets: zstd: %v", err)) // the options are constants
	}
	for codec, decode := range map[compress.Compression]func(dst, src []byte) ([]byte, error){
		compress.Codecs.Zstd: func(dst, src []byte) ([]byte, error) { return dec.DecodeAll(src, dst[:0]) },
		compress.Codecs.Snappy: func(dst, src []byte) ([]byte, error) {
			if n, err := snappy.DecodedLen(src); err != nil || n > len(dst) {
				return nil, fmt.Errorf("snappy: %d bytes of %d wanted (%v)", n, len(dst), err)
			}
			return snappy.Decode(dst, src)
		},
	} {
		whole, err := compress.GetCodec(codec)
		if err != nil {
			panic(fmt.Sprintf("datasets: %v", err)) // both are there
		}
		compress.RegisterCodec(codec, cappedCodec{whole, decode})
	}
}

// A cappedCodec decodes into the room that it is given.
type cappedCodec struct {
	compress.Codec
	decode func(dst, src []byte) ([]byte, error)
}

// Decode panics over what can't be decoded, as the library's codecs do.
func (c cappedCodec) Decode(dst, src []byte) []byte {
	out, err := c.decode(dst, src)
	if err != nil {
		panic(err)
	}
	return out
}

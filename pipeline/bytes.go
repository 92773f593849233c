package pipeline

import (
	"math"
	"strconv"
	"strings"
)

// BytesWanted says what [ParseBytes] reads.
const BytesWanted = "bytes, with k, m, g or t behind them (512m, 4g)"

// ParseBytes reads a number of bytes with k, m, g or t behind it, powers of 1024; "MB" and
// "MiB" are the same as "m".
func ParseBytes(text string) (int64, error) {
	number := strings.ToLower(text)
	for _, tail := range []string{"ib", "b"} {
		if cut, ok := strings.CutSuffix(number, tail); ok {
			number = cut
			break
		}
	}
	shift := 0
	for i, unit := range []string{"k", "m", "g", "t"} {
		if cut, ok := strings.CutSuffix(number, unit); ok {
			number, shift = cut, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err == nil && (n < 0 || n > math.MaxInt64>>shift) {
		err = strconv.ErrRange
	}
	return n << shift, err
}

package encode

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// DefaultDate is what strftime_now tells a chat template: a fixed day, because token ids that change with the
// clock can't be cached. It is the day Llama's own templates fall back to.
var DefaultDate = time.Date(2024, time.July, 26, 0, 0, 0, 0, time.UTC)

var dateLayouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'y': "06", 'j': "002",
}

// strftimeNow formats the date of the rendering as Python's strftime does in the C locale.
func strftimeNow(r *rendering, args callArgs) (any, error) {
	bound, given, err := args.strings("format")
	if err != nil || !given[0] {
		return nil, errors.New("strftime_now wants a format")
	}
	format, unpadded := bound[0], map[byte]string{'d': "2", 'm': "1", 'I': "3"}
	r.spent.usedDate = true
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		layouts := dateLayouts
		if format[i] == '-' && i+1 < len(format) {
			i++
			layouts = unpadded
		}
		layout, ok := layouts[format[i]]
		switch {
		case ok:
			b.WriteString(r.spent.date.Format(layout))
		case format[i] == '%':
			b.WriteByte('%')
		default:
			return nil, fmt.Errorf("strftime_now format %%%c isn't supported", format[i])
		}
	}
	return b.String(), r.grow(b.Len())
}

package refcache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// entry is one line of the log of an unfinished cache: a part that is whole, and the
// counts that hold after it. The log is appended to, so that the cost of a part does
// not grow with their number; a line that a kill cut short fails its checksum.
type entry struct {
	Part     Part     `json:"part"`
	Position Position `json:"position"`
	Tokens   [3]int64 `json:"tokens"` // prompt, chosen, rejected tokens of this part
}

// count adds the tokens of a row.
func (e *entry) count(r *Row) {
	for i, ids := range [][]int32{r.Prompt, r.Chosen, r.Rejected} {
		e.Tokens[i] += int64(len(ids))
	}
}

// sumChars is how much of the line's SHA-256, in hexadecimal, stands before it.
const sumChars = 16

func (e entry) line() ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("refcache: log of parts: %w", err)
	}
	return fmt.Appendf(nil, "%s %s\n", lineSum(data), data), nil
}

func lineSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:sumChars]
}

// readLog returns the entries of the log up to the first damaged line, and how many
// bytes they take. No log is an empty log.
func readLog(path string, s *Shard) (entries []entry, size int64, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("refcache: %w", err)
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole {
			return entries, size, nil
		}
		e, ok := parseLine(line, partName(s.part(len(entries))))
		if !ok {
			return entries, size, nil
		}
		entries, size, data = append(entries, e), size+int64(len(line))+1, rest
	}
}

// parseLine reads the line of a part from a log.
func parseLine(line []byte, name string) (e entry, ok bool) {
	sum, text, found := bytes.Cut(line, []byte{' '})
	if !found || string(sum) != lineSum(text) || json.Unmarshal(text, &e) != nil {
		return entry{}, false
	}
	return e, e.Part.Name == name && e.Part.Rows > 0
}

// add counts a whole part.
func (m *Manifest) add(e entry) {
	m.Parts = append(m.Parts, e.Part)
	m.Counts.Kept += e.Part.Rows
	m.Counts.PromptTokens += e.Tokens[0]
	m.Counts.ChosenTokens += e.Tokens[1]
	m.Counts.RejectedTokens += e.Tokens[2]
	m.Counts.at(e.Position)
}

// at takes over the counts of source rows.
func (c *Counts) at(p Position) {
	c.Read, c.Dropped, c.Apart, c.Truncated = p.Rows, p.Dropped, p.Apart, p.Truncated
}

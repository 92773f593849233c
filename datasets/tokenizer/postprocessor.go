package tokenizer

import (
	"encoding/json"
	"math"
)

// surroundings are the ids that a post-processor puts around one sequence.
type surroundings struct{ before, after []int32 }

// parsePostprocessors reads what stands around a single sequence. Processors of
// a Sequence put theirs around what the earlier ones made.
func parsePostprocessors(raw json.RawMessage) (all surroundings, err error) {
	parts, err := parseParts("post_processor", "processors", raw, parsePostprocessor)
	for _, p := range parts {
		all.before = append(p.before, all.before...)
		all.after = append(all.after, p.after...)
	}
	return all, err
}

func parsePostprocessor(part, kind string, raw json.RawMessage) (surroundings, error) {
	switch kind {
	case "ByteLevel": // trims the reference's offsets; adds nothing
		return surroundings{}, nil
	case "TemplateProcessing":
		return parseTemplate(part, raw)
	}
	return surroundings{}, &UnsupportedError{part, kind, "TemplateProcessing, ByteLevel or Sequence"}
}

// templateItem is one place of a template: a special token or the text.
type templateItem struct {
	SpecialToken *struct{ ID string }
	Sequence     *struct{ ID string }
}

func parseTemplate(part string, raw json.RawMessage) (s surroundings, err error) {
	var c struct {
		Single  []templateItem
		Special map[string]struct{ IDs []int64 } `json:"special_tokens"`
	}
	if err := decode(part, raw, &c); err != nil {
		return s, err
	}
	part += ".single"
	texts := 0
	side := &s.before
	for i, item := range c.Single {
		switch {
		case item.Sequence != nil && item.SpecialToken == nil:
			texts++
			side = &s.after
		case item.SpecialToken != nil && item.Sequence == nil:
			token, ok := c.Special[item.SpecialToken.ID]
			if !ok {
				return s, malformed(part, "item %d: %q is not in special_tokens", i, item.SpecialToken.ID)
			}
			for _, id := range token.IDs {
				if id < 0 || id > math.MaxInt32 {
					return s, malformed(part, "item %d: %q has id %d, want [0, %d]", i, item.SpecialToken.ID, id, math.MaxInt32)
				}
				*side = append(*side, int32(id))
			}
		default:
			return s, malformed(part, "item %d is neither a SpecialToken nor a Sequence", i)
		}
	}
	if texts != 1 {
		return s, malformed(part, "has %d sequences, want 1", texts)
	}
	return s, nil
}

package encode

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
)

// Truncation says which side of a pair that is longer than MaxLength goes.
type Truncation string

const (
	KeepStart Truncation = "keep_start" // the end of the completions goes
	KeepEnd   Truncation = "keep_end"   // the start of the prompt goes, then the start of the completions
)

// Options says how text becomes ids. Start from [DefaultOptions].
type Options struct {
	MaxLength    int        `json:"max_length" yaml:"max_length"` // tokens of prompt and completion together; at least 2
	Truncation   Truncation `json:"truncation" yaml:"truncation"`
	ChatTemplate string     `json:"chat_template" yaml:"chat_template"` // "auto": the model's; "none": plain lines; else a file (.jinja, or JSON with a chat_template)
	Date         time.Time  `json:"date" yaml:"-"`                      // what strftime_now tells a template; fixed, because ids must not change with the clock
}

// DefaultOptions returns 1024 tokens, keep_start, the model's own chat template and [DefaultDate].
func DefaultOptions() Options {
	return Options{MaxLength: 1024, Truncation: KeepStart, ChatTemplate: "auto", Date: DefaultDate}
}

// A Pair is a preference as token ids.
type Pair struct {
	ID                       datasets.ID
	Row                      int64
	Prompt, Chosen, Rejected []int32 // none is empty; prompt and either completion have at most MaxLength together
	Weight                   float32
	Apart                    bool // a completion doesn't begin at a token of prompt+completion: both were encoded apart
	Truncated                bool
	// PromptKey names the prompt: 128 bits of the SHA-256 of its ids before truncation, BOS included, each an int32 in
	// little-endian order. Pairs of one prompt have one key, whatever Prompt keeps of it.
	PromptKey [16]byte
}

// An Encoder turns pairs into token ids. All its methods may be called concurrently.
type Encoder struct {
	tok      *tokenizer.Tokenizer
	opt      Options
	config   Config
	template *chatTemplate // nil: none
	prefix   []int32       // what stands in front of every text, BOS as a rule
	bos      int32         // -1: the model has none
	eos      []int32       // the first is what plain text is closed with
	dummy    bool          // the tokenizer puts a space in front of every text
	dated    bool          // the template prints the date
}

// A NoTemplateError says that a pair is a conversation and no chat template is known.
type NoTemplateError struct{ Looked []string }

func (e *NoTemplateError) Error() string {
	return fmt.Sprintf("encode: the data holds conversations and the model no chat template: looked for chat_template.jinja "+
		"and tokenizer_config.json in %s; name a template file, or none for plain \"role: content\" lines", strings.Join(e.Looked, ", "))
}

// Open reads tokenizer.json and the [Config] of a model directory; files may also be in the folder above it.
func Open(dir string, opt Options) (*Encoder, error) {
	d, err := openModelDir(dir)
	if err != nil {
		return nil, err
	}
	data, path, err := d.read("tokenizer.json")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, fmt.Errorf("encode: no tokenizer.json in %s", strings.Join(d.folders, ", "))
	}
	tok, err := tokenizer.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("encode: %s: %w", path, err)
	}
	config, err := d.config()
	if err != nil {
		return nil, err
	}
	return New(tok, config, opt)
}

// New makes an encoder. The chat template is read and tried out on a small conversation here, so that a template
// that can't be rendered right is refused before any work is done.
func New(tok *tokenizer.Tokenizer, config Config, opt Options) (*Encoder, error) {
	if opt.MaxLength < 2 {
		return nil, fmt.Errorf("encode: max length is %d, want 2 or more", opt.MaxLength)
	}
	if opt.Truncation != KeepStart && opt.Truncation != KeepEnd {
		return nil, fmt.Errorf("encode: truncation is %q, want %q or %q", opt.Truncation, KeepStart, KeepEnd)
	}
	e := &Encoder{tok: tok, opt: opt, config: config, bos: -1}
	if err := e.findTokens(); err != nil {
		return nil, err
	}
	if err := e.findTemplate(); err != nil {
		return nil, err
	}
	anchored, _, err := e.behind("\n", "a")
	if err != nil {
		return nil, err
	}
	alone, err := tok.Encode("a")
	e.dummy = !slices.Equal(anchored, alone)
	return e, err
}

// findTokens resolves BOS and EOS.
func (e *Encoder) findTokens() error {
	if id, ok := e.tok.TokenID(e.config.Special["bos_token"]); ok {
		e.bos = id
	}
	e.prefix, _ = e.tok.Added() // what it adds behind is EOS, which has its own rule
	if add := e.config.AddBOS; len(e.prefix) == 0 && add != nil && *add && e.bos >= 0 {
		e.prefix = []int32{e.bos}
	}
	if token := e.config.Special["eos_token"]; token != "" {
		id, ok := e.tok.TokenID(token)
		if !ok {
			return fmt.Errorf("encode: eos_token %q is not in the tokenizer's vocabulary", token)
		}
		e.eos = append(e.eos, id)
	}
	for _, id := range e.config.EOSIDs {
		if _, ok := e.tok.Token(id); ok && !slices.Contains(e.eos, id) {
			e.eos = append(e.eos, id)
		}
	}
	if len(e.eos) == 0 {
		return fmt.Errorf("encode: no end token: looked for eos_token in tokenizer_config.json and special_tokens_map.json "+
			"and for eos_token_id in generation_config.json, config.json and genai_config.json, in %s", strings.Join(e.config.Looked, ", "))
	}
	return nil
}

// findTemplate reads and tries the chat template the options ask for.
func (e *Encoder) findTemplate() error {
	source, from := e.config.ChatTemplate, e.config.TemplateFile
	switch name := e.opt.ChatTemplate; name {
	case "none":
		return nil
	case "auto", "":
	default:
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("encode: chat template: %w", err)
		}
		source, from = string(data), name
		var conf map[string]json.RawMessage
		if json.Unmarshal(data, &conf) == nil {
			c := Config{}
			if err := c.tokenizerConfig(conf, name); err != nil {
				return err
			}
			source = c.ChatTemplate
		}
		if strings.TrimSpace(source) == "" {
			return fmt.Errorf("encode: %s holds no chat template", name)
		}
	}
	if source == "" {
		return nil
	}
	special := map[string]string{"bos_token": "", "eos_token": ""}
	for name, token := range e.config.Special {
		special[name] = token
	}
	t, err := newTemplate(source, special, e.opt.Date)
	if err == nil {
		e.dated, err = t.check()
	}
	if err != nil {
		return fmt.Errorf("%w (template of %s)", err, from)
	}
	e.template = t
	return nil
}

// Encode turns a pair into ids. A [*datasets.RowError] says that this row can't be used; any other error, such as a
// [*NoTemplateError], holds for the whole run.
func (e *Encoder) Encode(p datasets.Pair) (Pair, error) {
	out := Pair{ID: p.ID, Row: p.Row, Weight: p.Weight}
	if p.Chosen.Empty() {
		return Pair{}, p.RowError("chosen", datasets.EmptyCompletion, "completion is empty")
	}
	if p.Rejected.Empty() {
		return Pair{}, p.RowError("rejected", datasets.EmptyCompletion, "completion is empty")
	}
	texts, err := e.texts(p)
	if err != nil {
		return Pair{}, err
	}
	if err := e.split(&p, texts, &out); err != nil {
		return Pair{}, err
	}
	if out.Prompt = e.open(out.Prompt); len(out.Prompt) == 0 {
		return Pair{}, p.RowError("prompt", datasets.NoPrompt, "prompt has no tokens and the model no BOS, want one token or more")
	}
	if out.PromptKey, err = e.promptKey(out.Prompt, texts); err != nil {
		return Pair{}, invalid(&p, "prompt", err)
	}
	if !e.truncate(&out) {
		return Pair{}, p.RowError("prompt", datasets.PromptTooLong,
			fmt.Sprintf("prompt has %d tokens, want fewer than max length %d", len(out.Prompt), e.opt.MaxLength))
	}
	if slices.Equal(out.Chosen, out.Rejected) {
		return Pair{}, p.RowError("", datasets.IdenticalCompletions, fmt.Sprintf("chosen and rejected are the same %d tokens", len(out.Chosen)))
	}
	return out, nil
}

// open puts BOS in front of a text's ids unless they begin with it; an empty text gets it wherever the model has one.
func (e *Encoder) open(ids []int32) []int32 {
	if len(ids) == 0 && len(e.prefix) == 0 && e.bos >= 0 {
		return []int32{e.bos}
	}
	if len(e.prefix) == 0 || len(ids) >= len(e.prefix) && slices.Equal(ids[:len(e.prefix)], e.prefix) {
		return ids
	}
	return append(slices.Clone(e.prefix), ids...)
}

// promptKey is the [Pair]'s key of a prompt. Where the boundary lies before the end of the rendered prompt, it depends
// on how the answers begin: the key is of all that was rendered.
func (e *Encoder) promptKey(ids []int32, t pairTexts) (key [16]byte, err error) {
	if t.opening != "" {
		if ids, err = e.tok.Encode(t.prompt + t.opening); err != nil {
			return key, err
		}
		ids = e.open(ids)
	}
	data := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		data = binary.LittleEndian.AppendUint32(data, uint32(id))
	}
	sum := sha256.Sum256(data)
	copy(key[:], sum[:])
	return key, nil
}

// truncate shortens a pair to the maximum length; false where keep_start finds no room for a completion.
//
// TRL cuts chosen and rejected rows one by one, so that with keep_end they may keep different prompts, and a row can
// be all completion, whose first token nothing predicts. A cached pair has one prompt, so here the prompt is cut by
// what the longer completion needs, keeps its last token, and only then a completion loses its start.
func (e *Encoder) truncate(p *Pair) bool {
	limit := e.opt.MaxLength
	longer := max(len(p.Chosen), len(p.Rejected))
	if e.opt.Truncation == KeepStart {
		room := limit - len(p.Prompt)
		if room < 1 {
			return false
		}
		p.Truncated = longer > room
		p.Chosen, p.Rejected = p.Chosen[:min(len(p.Chosen), room)], p.Rejected[:min(len(p.Rejected), room)]
		return true
	}
	if len(p.Prompt)+longer <= limit {
		return true
	}
	p.Truncated = true
	p.Prompt = last(p.Prompt, max(1, limit-longer))
	p.Chosen, p.Rejected = last(p.Chosen, limit-len(p.Prompt)), last(p.Rejected, limit-len(p.Prompt))
	return true
}

// last returns the last n ids, or all.
func last(ids []int32, n int) []int32 { return ids[max(0, len(ids)-n):] }

// Prompt returns the ids generation starts from: BOS and the prompt; of a chat, with the opening of the answer.
func (e *Encoder) Prompt(p datasets.Text) ([]int32, error) {
	text := p.Plain
	if p.IsChat() {
		var err error
		if text, err = e.render(p.Messages, true); err != nil {
			return nil, err
		}
	}
	ids, err := e.tok.Encode(text)
	if err != nil {
		return nil, err
	}
	if ids = e.open(ids); len(ids) == 0 {
		return nil, fmt.Errorf("encode: prompt has no tokens and the model no BOS, want one token or more")
	}
	return ids, nil
}

// HasChatTemplate reports whether conversations go through a chat template.
func (e *Encoder) HasChatTemplate() bool { return e.template != nil }

// Decode returns the text of ids, special tokens left out.
func (e *Encoder) Decode(ids []int32) string { return e.tok.Decode(ids, true) }

// EOS returns the ids that end a generated text; the first is what plain completions are closed with.
func (e *Encoder) EOS() []int32 { return slices.Clone(e.eos) }

// Identity names everything here that can move an id; it is part of a reference cache's identity. Never change a key
// or the meaning of its value: raise "encoding" instead.
func (e *Encoder) Identity() map[string]string {
	id := map[string]string{
		"encoding":         "1",
		"tokenizer_sha256": e.tok.SHA256(),
		"chat_template":    "none",
		"bos":              fmt.Sprint(e.prefix, e.bos),
		"eos":              "append " + strconv.Itoa(int(e.eos[0])) + " to plain text",
		"max_length":       strconv.Itoa(e.opt.MaxLength),
		"truncation":       string(e.opt.Truncation),
	}
	if e.template == nil && e.opt.ChatTemplate == "none" {
		id["chat_template"] = "role: content lines"
	}
	if e.template != nil {
		h := sha256.New()
		special, _ := json.Marshal(e.template.special) // keys in order; a map of strings can't fail
		fmt.Fprintf(h, "%d %s%s", len(e.template.source), e.template.source, special)
		id["chat_template"] = "sha256:" + hex.EncodeToString(h.Sum(nil))
		if e.dated {
			id["chat_template_date"] = e.opt.Date.Format(time.DateTime)
		}
	}
	return id
}

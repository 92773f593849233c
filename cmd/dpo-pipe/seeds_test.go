//go:build cgo && linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"
	"github.com/klauspost/compress/zstd"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/onnx/onnxtest"
)

// writeSeeds lays out a sound file of every kind: data, a model, a graph, a cache, a run.
// Other sound files of a kind are in the folder of its name with ".seeds" behind it.
func writeSeeds(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(demo.WriteTo(dir))
	must(fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "pairs.jsonl"), "24"))
	for _, args := range []string{
		"precompute-ref --model model --data pairs.jsonl --out cache --part-pairs 12",
		"train --cache cache --out run --eval-frac 0.3 --rank 2 --save-every 2 --batch-pairs 4",
		"train --cache cache --out sweep --eval-frac 0.3 --rank 2 --sweep beta=0.1,0.2",
		"export --checkpoint run/last --model model --out policy",
		"compare --model model --policy policy --held-out run --limit 1 --max-tokens 8 --report run",
	} {
		out, err := command(context.Background(), t, dir, strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
	}
	must(seedTemplates(dir))
	must(seedTokenizers(dir))
	must(seedGraphs(dir))
	must(seedUnfinished(dir))
	must(os.Mkdir(filepath.Join(dir, "data"), 0o777))
	must(seedTables(dir))
	must(seedTexts(dir))
}

// seed writes a sound file; a first one under its own name.
func seed(dir, file string, data []byte) error {
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err == nil {
		more, _ := filepath.Glob(filepath.Join(path+".seeds", "*"))
		if err := os.MkdirAll(path+".seeds", 0o777); err != nil {
			return err
		}
		path = filepath.Join(path+".seeds", fmt.Sprint(len(more)))
	}
	return os.WriteFile(path, data, 0o666)
}

func seedTemplates(dir string) error {
	files, err := filepath.Glob(filepath.Join("..", "..", "datasets", "encode", "testdata", "templates", "*.jinja"))
	for _, file := range files {
		data, e := os.ReadFile(file)
		err = errors.Join(err, e, seed(dir, "model/chat_template.jinja", data))
	}
	return err
}

// seedTokenizers takes those that the package tokenizer is tested with: one for each component.
func seedTokenizers(dir string) error {
	data, err := os.ReadFile(filepath.Join("..", "..", "datasets", "tokenizer", "testdata", "components.json"))
	if err != nil {
		return err
	}
	var all struct {
		Models map[string]map[string]any
		Cases  []struct {
			Model      string
			ModelParts map[string]any `json:"model_parts"`
			File       map[string]any
		}
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, c := range all.Cases {
		model := maps.Clone(all.Models[c.Model])
		maps.Copy(model, c.ModelParts)
		c.File["model"] = model
		text, err := json.Marshal(c.File)
		if err := errors.Join(err, seed(dir, "model/tokenizer.json", text)); err != nil {
			return err
		}
	}
	return nil
}

// seedGraphs makes models of every form that the head has, one with external data.
func seedGraphs(dir string) error {
	graph := filepath.Join(dir, "graph")
	if err := os.Mkdir(graph, 0o777); err != nil {
		return err
	}
	opts := []onnxtest.Options{onnxtest.Default()}
	opts[0].External = true
	for _, form := range onnxtest.Forms {
		opt := onnxtest.Default()
		opt.V, opt.D, opt.FF, opt.Layers, opt.Form = 32, 16, 16, 1, form
		opt.Bias, opt.KeepLogits, opt.Softcap = form == onnxtest.MatMul, form == onnxtest.Gemm, 3
		opts = append(opts, opt)
	}
	for i, opt := range opts {
		to := graph
		if i > 0 {
			to = filepath.Join(dir, "graph-other")
			if err := os.MkdirAll(to, 0o777); err != nil {
				return err
			}
		}
		if err := onnxtest.New(opt).WriteDir(to); err != nil {
			return err
		}
		if i > 0 {
			data, err := os.ReadFile(filepath.Join(to, "model.onnx"))
			if err := errors.Join(err, seed(dir, "graph/model.onnx", data)); err != nil {
				return err
			}
		}
	}
	return nil
}

// seedUnfinished writes a cache as a kill leaves it: with a log of its parts.
func seedUnfinished(dir string) error {
	r, err := refcache.Open(filepath.Join(dir, "cache"))
	if err != nil {
		return err
	}
	defer r.Close()
	head, err := r.Head()
	if err != nil {
		return err
	}
	w, err := refcache.Create(filepath.Join(dir, "unfinished"), refcache.Manifest{
		Identity: r.Manifest().Identity, D: r.Manifest().D, V: r.Manifest().V, FeatureDType: r.Manifest().FeatureDType,
	}, *head)
	if err != nil {
		return err
	}
	for i := range 4 {
		var row refcache.Row
		if err := errors.Join(r.Row(int64(i), &row), w.WritePart([]refcache.Row{row}, refcache.Position{Rows: int64(i) + 1})); err != nil {
			return err
		}
	}
	return w.Close()
}

// pairsRecord is a table of pairs: prompts and ids as text, completions as messages, numbers.
func pairsRecord() arrow.Record {
	message := arrow.StructOf(
		arrow.Field{Name: "role", Type: arrow.BinaryTypes.String, Nullable: true}, arrow.Field{Name: "content", Type: arrow.BinaryTypes.String, Nullable: true},
	)
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "prompt", Type: arrow.ListOf(message), Nullable: true},
		{Name: "chosen", Type: arrow.ListOf(message), Nullable: true},
		{Name: "rejected", Type: arrow.ListOf(message), Nullable: true},
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "weight", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "score_chosen", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "score_rejected", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "source", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range 40 {
		for c, text := range []string{fmt.Sprintf("question %d of many", i), fmt.Sprintf("answer %d", i), strings.Repeat("no ", i%7+1)} {
			list := b.Field(c).(*array.ListBuilder)
			list.Append(true)
			turns := list.ValueBuilder().(*array.StructBuilder)
			for range 1 + i%2*(1-min(c, 1))*2 {
				turns.Append(true)
				turns.FieldBuilder(0).(*array.StringBuilder).Append([]string{"user", "assistant", "assistant"}[c])
				turns.FieldBuilder(1).(*array.StringBuilder).Append(text)
			}
		}
		b.Field(3).(*array.StringBuilder).Append(fmt.Sprint("id-", i))
		b.Field(4).(*array.Float64Builder).Append(1)
		if i%3 == 0 {
			b.Field(5).AppendNull()
		} else {
			b.Field(5).(*array.Float32Builder).Append(float32(i))
		}
		b.Field(6).(*array.Int64Builder).Append(int64(i % 4))
		b.Field(7).(*array.StringBuilder).Append([]string{"a", "b"}[i%2])
	}
	return b.NewRecord()
}

// seedTables writes Parquet with every codec, page version and encoding that the library
// writes, some of another writer where they are at hand, and Arrow in both forms.
func seedTables(dir string) error {
	rec := pairsRecord()
	defer rec.Release()
	table := array.NewTableFromRecords(rec.Schema(), []arrow.Record{rec})
	defer table.Release()
	plain := parquet.WithDictionaryDefault(false)
	v2 := parquet.WithDataPageVersion(parquet.DataPageV2)
	codec := parquet.WithCompression
	for _, props := range [][]parquet.WriterProperty{
		{codec(compress.Codecs.Snappy)},
		{codec(compress.Codecs.Zstd), v2},
		{codec(compress.Codecs.Gzip), plain},
		{codec(compress.Codecs.Brotli), v2, plain},
		{codec(compress.Codecs.Uncompressed)},
		{codec(compress.Codecs.Uncompressed), plain, v2},
		{codec(compress.Codecs.Uncompressed), plain, parquet.WithEncodingFor("id", parquet.Encodings.DeltaByteArray)},
		{codec(compress.Codecs.Snappy), plain, parquet.WithEncodingFor("source", parquet.Encodings.DeltaLengthByteArray), parquet.WithEncodingFor("score_rejected", parquet.Encodings.DeltaBinaryPacked)},
	} {
		var b bytes.Buffer
		props = append(props, parquet.WithDataPageSize(300), parquet.WithBatchSize(7), parquet.WithMaxRowGroupLength(16))
		err := pqarrow.WriteTable(table, &b, 16, parquet.NewWriterProperties(props...), pqarrow.DefaultWriterProps())
		if err := errors.Join(err, seed(dir, "data/rows.parquet", b.Bytes())); err != nil {
			return err
		}
	}
	for _, opts := range [][]ipc.Option{{}, {ipc.WithLZ4()}, {ipc.WithZstd()}} {
		opts = append(opts, ipc.WithSchema(rec.Schema()))
		var stream bytes.Buffer
		s := ipc.NewWriter(&stream, opts...)
		f, err := os.Create(filepath.Join(dir, "data", "tmp"))
		if err != nil {
			return err
		}
		w, err := ipc.NewFileWriter(f, opts...)
		if err != nil {
			return err
		}
		for from := int64(0); from < rec.NumRows(); from += 16 {
			part := rec.NewSlice(from, min(from+16, rec.NumRows()))
			err = errors.Join(err, s.Write(part), w.Write(part))
			part.Release()
		}
		err = errors.Join(err, s.Close(), w.Close(), f.Close())
		file, e := os.ReadFile(f.Name())
		if err := errors.Join(err, e, seed(dir, "data/rows.arrow", file), seed(dir, "data/rows.arrows", stream.Bytes()), os.Remove(f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// seedTexts writes lines, an array, and compressed files.
func seedTexts(dir string) error {
	for _, rows := range []string{
		`{"prompt": "Q: \u00fc \ud83d\ude00", "chosen": "A", "rejected": "B", "weight": 0.5, "score_chosen": 3, "score_rejected": 1e0}` + "\n" +
			`{"id": 7, "prompt": "more", "chosen": "yes", "rejected": "no", "source": null, "other": {"a": [1, {"b": true}]}}` + "\n",
		`{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}` + "\n" +
			`{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}]}` + "\n",
	} {
		text := []byte(rows)
		list := []byte("[" + strings.ReplaceAll(strings.TrimSpace(rows), "\n", ",\n") + "]\n")
		var zipped bytes.Buffer
		gz := gzip.NewWriter(&zipped)
		_, err := gz.Write(bytes.Repeat(text, 40))
		zw, e := zstd.NewWriter(nil)
		if err := errors.Join(err, gz.Close(), e); err != nil {
			return err
		}
		parquet, err := os.ReadFile(filepath.Join(dir, "data", "rows.parquet"))
		if err != nil {
			return err
		}
		var table bytes.Buffer
		gz = gzip.NewWriter(&table)
		_, err = gz.Write(parquet)
		err = errors.Join(err, gz.Close(), seed(dir, "data/rows.parquet.gz", table.Bytes()),
			seed(dir, "data/rows.jsonl", text), seed(dir, "data/rows.json", list), seed(dir, "data/rows.jsonl.gz", zipped.Bytes()),
			seed(dir, "data/rows.jsonl.zst", zw.EncodeAll(bytes.Repeat(text, 40), nil)))
		if err != nil {
			return err
		}
	}
	return nil
}

package datasets

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dataSuffixes are the names of data files in a folder, before .gz or .zst.
var dataSuffixes = []string{".parquet", ".pq", ".arrow", ".arrows", ".ipc", ".feather", ".jsonl", ".ndjson", ".json"}

// metadataNames are JSON files that lie beside data files and are none.
var metadataNames = []string{"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}

// expand lists the files that paths name, in the order of paths. A folder stands
// for the data files in it and in its sub-folders, sorted by name; a glob for its
// matches, sorted. Hidden and temporary files are passed over; other files of a
// folder that are no data are findings. A file is listed as often as it is named.
func expand(paths []string) (files, findings []string, err error) {
	if len(paths) == 0 {
		return nil, nil, fmt.Errorf("datasets: no paths are given")
	}
	for _, path := range paths {
		matches := []string{path}
		if _, err := os.Stat(path); err != nil && strings.ContainsAny(path, "*?[") {
			if matches, err = filepath.Glob(path); err != nil {
				return nil, nil, fmt.Errorf("datasets: glob %q: %w", path, err)
			}
			matches = slices.DeleteFunc(matches, func(m string) bool { return isIgnored(filepath.Base(m)) })
		}
		before := len(files)
		for _, match := range matches {
			info, err := os.Stat(match)
			if err != nil {
				return nil, nil, fmt.Errorf("datasets: %w", err)
			}
			if !info.IsDir() {
				files = append(files, match)
			} else if files, findings, err = walk(match, files, findings); err != nil {
				return nil, nil, fmt.Errorf("datasets: %w", err)
			}
		}
		if len(files) == before {
			return nil, nil, fmt.Errorf("datasets: %q names no data file (want %s, also with .gz or .zst)", path, strings.Join(dataSuffixes, " "))
		}
	}
	return files, findings, nil
}

// walk appends the data files under dir.
func walk(dir string, files, findings []string) ([]string, []string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if isIgnored(entry.Name()) {
			continue
		}
		if entry.IsDir() {
			if files, findings, err = walk(path, files, findings); err != nil {
				return nil, nil, err
			}
			continue
		}
		info, err := os.Stat(path) // a hub cache holds symbolic links to files
		switch {
		case err != nil:
			return nil, nil, err
		case info.IsDir():
			findings = append(findings, fmt.Sprintf("%s is a symbolic link to a folder and was not entered", path))
		case !info.Mode().IsRegular() || !isData(entry.Name()):
			findings = append(findings, fmt.Sprintf("%s is no data file and was not read", path))
		default:
			files = append(files, path)
		}
	}
	return files, findings, nil
}

// isIgnored reports whether name is hidden or of a file being written.
func isIgnored(name string) bool {
	lower := strings.ToLower(name)
	for _, suffix := range []string{"~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".incomplete", ".lock", ".swp"} {
		if strings.HasSuffix(lower, suffix) {
			return true
		}
	}
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

// isData reports whether a folder's file is data by its name.
func isData(name string) bool {
	name = strings.ToLower(name)
	return !slices.Contains(metadataNames, name) && slices.Contains(dataSuffixes, filepath.Ext(uncompressedName(name)))
}

// uncompressedName takes .gz or .zst off name, which is in lower case.
func uncompressedName(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
}

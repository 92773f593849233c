// Package job runs everything from preference data to a published policy as one strict YAML
// file says: reference pass, training, evaluation, gates, export, publishing.
//
// A stage whose inputs are what they were, by content, is not run again; what it left in an
// earlier run's folder serves. A run that was interrupted goes on where it stopped. Each
// start leaves a folder in the job's runs:
//
//	RUNS/20261127T020000Z/config.yaml      every setting, which repeats the run
//	                      identities.json  what each stage was made from
//	                      result.json      how it ended
//	                      log.jsonl        what it said
//	                      report.html      of training
//	                      train/           the run or sweep of pipeline.Train
//	                      evaluation.json  held-out figures, beside the published policy's
//	                      policy/          what is published
//
// Nothing is printed here; a [slog.Handler] and a [pipeline.Reporter] are told.
package job

package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"time"
)

// pauses are how long one request may take, and how long to wait before each further try.
type pauses struct {
	timeout time.Duration
	between []time.Duration
}

var patience = pauses{timeout: 10 * time.Second, between: []time.Duration{time.Second, 4 * time.Second, 16 * time.Second}}

// sender sends requests, again where that may help. Its errors hold no address.
type sender struct{ pauses }

// client follows no redirect: it would take secret headers elsewhere.
var client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// Do implements push.HTTPDoer; the response is one of success, its body empty.
func (s sender) Do(req *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, again, err := s.once(req)
		if err == nil || !again || try == len(s.between) {
			return resp, err
		}
		select {
		case <-req.Context().Done():
			return nil, errors.Join(err, req.Context().Err())
		case <-time.After(s.between[try]):
		}
	}
}

// once sends a request; again says that another try may do better.
func (s sender) once(req *http.Request) (resp *http.Response, again bool, err error) {
	ctx, cancel := context.WithTimeout(req.Context(), s.timeout)
	defer cancel()
	one := req.Clone(ctx)
	if one.Body, err = req.GetBody(); err != nil {
		return nil, false, err
	}
	resp, err = client.Do(one)
	if err != nil {
		return nil, req.Context().Err() == nil, bare(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		// package push takes no other success, and its error would hold the address.
		resp.Body, resp.StatusCode = http.NoBody, http.StatusOK
		return resp, false, bare(err)
	}
	return nil, resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("answered %s, want success", resp.Status)
}

// bare is an error without the address that package net/http puts in front.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// host is what of an address may be shown.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "an address without a host"
	}
	return u.Scheme + "://" + u.Host
}

// checkAddress refuses what is no address, without showing it.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("want http://… or https://…")
	}
	return nil
}

// message is the body of a webhook's request.
type message struct {
	// Text is what chat services show.
	Text     string    `json:"text"`
	Job      string    `json:"job"`
	Success  bool      `json:"success"`
	ExitCode int       `json:"exit_code"`
	Message  string    `json:"message,omitempty"`
	Finished time.Time `json:"finished"`
	Seconds  float64   `json:"seconds"`
	Pairs    int64     `json:"pairs"`
	NewPairs int64     `json:"new_pairs"`
	// What is not known is left out.
	Accuracy   *float64         `json:"accuracy,omitempty"`
	KL         *float64         `json:"kl,omitempty"`
	GatePassed *bool            `json:"gate_passed,omitempty"`
	Dropped    map[string]int64 `json:"dropped_rows,omitempty"`
}

func messageOf(s Sample) message {
	text := fmt.Sprintf("dpo-pipe %s: done", s.Job)
	if !s.Success {
		text = fmt.Sprintf("dpo-pipe %s: failed (exit code %d)", s.Job, s.ExitCode)
	}
	if s.Message != "" {
		text += ": " + s.Message
	}
	return message{
		Text: text, Job: s.Job, Success: s.Success, ExitCode: s.ExitCode, Message: s.Message, Finished: s.Finished.UTC(),
		Seconds: s.Duration.Seconds(), Pairs: s.Pairs, NewPairs: s.NewPairs, Accuracy: known(s.Accuracy), KL: known(s.KL),
		GatePassed: s.GatePassed, Dropped: s.Dropped,
	}
}

// known is nil for what JSON has no number for.
func known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// post sends a sample to a webhook.
func post(ctx context.Context, to Webhook, s Sample, p pauses) error {
	if err := checkAddress(to.URL); err != nil {
		return err
	}
	body, err := json.Marshal(messageOf(s))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(body))
	if err != nil {
		return bare(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range to.Headers {
		req.Header.Set(name, value)
	}
	_, err = sender{p}.Do(req)
	return err
}

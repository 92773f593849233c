package corpus

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// A Topic is what a letter is about.
type Topic int

// The topics of letters.
const (
	Broken Topic = iota
	Return
	Warranty
	Refund
	Late
	WrongItem
	Cancel
	Address
	Missing
	topics
)

// topicWeights makes the topics whose replies state a figure, and faults, the
// more frequent ones. Indexed by Topic.
var topicWeights = [topics]int{Broken: 7, Return: 7, Warranty: 7, Refund: 2, Late: 2, WrongItem: 2, Cancel: 2, Address: 2, Missing: 2}

// A Scene is what one letter says: everything that a reply may refer to.
type Scene struct {
	Topic   Topic
	Product *Product
	Fault   Fault    // what is wrong; read when Topic is Broken
	Other   *Product // what came instead; read when Topic is WrongItem
	Name    string   // "" when the customer gives none
	Order   int      // four digits
}

// NewScene draws a scene.
func NewScene(rng *rand.Rand) Scene {
	p := rng.IntN(len(products))
	other := (p + 1 + rng.IntN(len(products)-1)) % len(products)
	s := Scene{
		Topic:   drawTopic(rng),
		Product: &products[p],
		Other:   &products[other],
		Order:   1000 + rng.IntN(9000),
	}
	s.Fault = pick(rng, s.Product.Faults)
	if rng.IntN(2) == 0 {
		s.Name = pick(rng, names)
	}
	return s
}

// Fact returns the figure that a reply to s states, and whether it states any.
func (s Scene) Fact() (Fact, bool) {
	switch s.Topic {
	case Return:
		return s.Product.Return, true
	case Warranty:
		return s.Product.Cover, true
	case Refund:
		return refundDays, true
	}
	return Fact{}, false
}

func drawTopic(rng *rand.Rand) Topic {
	total := 0
	for _, w := range topicWeights {
		total += w
	}
	at := rng.IntN(total)
	for t, w := range topicWeights {
		if at -= w; at < 0 {
			return Topic(t)
		}
	}
	panic("corpus: topic weights do not add up")
}

// Prompt writes the letter of s, up to the place where the reply starts.
func (s Scene) Prompt(rng *rand.Rand) string {
	var b strings.Builder
	b.WriteString("Customer: ")
	if s.Name != "" {
		b.WriteString(s.fill(pick(rng, introductions)) + " ")
	}
	b.WriteString(s.fill(pick(rng, letters[s.Topic])))
	if text := b.String(); !strings.Contains(text, strconv.Itoa(s.Order)) {
		b.WriteString(s.fill(" Order {order}."))
	}
	b.WriteString("\nAgent:")
	return b.String()
}

// fill puts the scene into the slots of a template. {figure} is left to replies.
func (s Scene) fill(template string) string {
	return strings.NewReplacer(
		"{product}", s.Product.Name,
		"{part}", s.Product.Part,
		"{other}", s.Other.Name,
		"{fault}", s.Fault.Says,
		"{advice}", s.Fault.Advice,
		"{name}", s.Name,
		"{order}", strconv.Itoa(s.Order),
	).Replace(template)
}

func pick[E any](rng *rand.Rand, from []E) E { return from[rng.IntN(len(from))] }

var introductions = []string{"Hi, this is {name}.", "Hello, {name} here.", "My name is {name}.", "Good morning, I am {name}."}

// letters holds the ways of saying each topic. Indexed by Topic.
var letters = [topics][]string{
	Broken: {
		"My {product} {fault}.", "My {product} {fault} after two days.", "The {product} I bought {fault}.",
		"My new {product} {fault}. What can I do?", "Since last week my {product} {fault}.", "Can you help? My {product} {fault}.",
	},
	Return: {
		"How long do I have to return my {product}?", "I do not like the {product}. Until when can I send it back?",
		"How many days do I have to return a {product}?", "Can I still return my {product}?",
		"What is the return window for the {product}?",
	},
	Warranty: {
		"How long is the warranty on my {product}?", "How many years is the {product} covered?",
		"Is my {product} still under warranty?", "What warranty does the {product} have?",
	},
	Refund: {
		"I sent the {product} back. When do I get my money?", "Where is the refund for my {product}?",
		"How long does the refund for the {product} take?",
	},
	Late: {
		"My {product} has not arrived yet.", "Where is my {product}?", "I am still waiting for my {product}.",
		"The {product} should have been here last week.",
	},
	WrongItem: {
		"I ordered a {product} but got a {other}.", "You sent me a {other} instead of a {product}.",
		"There was a {other} in the box, not a {product}.",
	},
	Cancel: {
		"Please cancel the {product}.", "I do not need the {product} any more. Can I cancel it?",
		"Can you stop order {order}? It is a {product}.",
	},
	Address: {
		"I gave the wrong address for my {product}.", "I am moving. Can you change the address for my {product}?",
		"Please send the {product} to my office instead.",
	},
	Missing: {
		"The {part} of my {product} is missing.", "There was no {part} in the box with the {product}.",
		"My {product} came without the {part}.",
	},
}

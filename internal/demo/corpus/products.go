package corpus

// A Product is one thing the shop sells and the facts about it.
type Product struct {
	Name   string
	Part   string // a part that may be missing from the box
	Return Fact   // return window, days
	Cover  Fact   // warranty, years
	Faults []Fault
}

// A Fact is a figure of the shop's policy: the one in force and the outdated
// one that a wrong reply states.
type Fact struct{ True, Outdated string }

// A Fault is what a customer reports and the advice that goes with it.
type Fault struct{ Says, Advice string }

// refundDays is how long a refund takes, whatever the product.
var refundDays = Fact{True: "five", Outdated: "twenty"}

// products is the shop. Return windows and warranties cross: each true figure is
// the outdated one of other products, and no two products share the same two.
var products = []Product{
	{"kettle", "lid", Fact{"7", "14"}, Fact{"five", "seven"}, []Fault{
		{"stopped heating", "press the reset button under the base"},
		{"leaks at the base", "check that the lid is fully closed"},
		{"smells of plastic", "boil it twice with clean water"},
	}},
	{"toaster", "tray", Fact{"14", "21"}, Fact{"six", "two"}, []Fault{
		{"burns everything", "turn the dial down to level three"},
		{"will not stay down", "empty the tray and try again"},
		{"only heats one side", "press the reset button under the base"},
	}},
	{"blender", "jug", Fact{"21", "30"}, Fact{"seven", "three"}, []Fault{
		{"makes a loud noise", "tighten the blade by hand"},
		{"leaks at the base", "check that the seal is in place"},
		{"stopped turning", "let it cool for ten minutes"},
	}},
	{"lamp", "shade", Fact{"30", "60"}, Fact{"two", "four"}, []Fault{
		{"keeps flickering", "tighten the bulb by hand"},
		{"will not switch on", "try another socket"},
		{"gets very hot", "fit a smaller bulb"},
	}},
	{"heater", "stand", Fact{"60", "90"}, Fact{"three", "five"}, []Fault{
		{"stopped heating", "let it cool for ten minutes"},
		{"smells of dust", "clean the filter with a dry cloth"},
		{"makes a loud noise", "check that the stand is level"},
	}},
	{"fan", "stand", Fact{"90", "7"}, Fact{"four", "six"}, []Fault{
		{"stopped turning", "clean the filter with a dry cloth"},
		{"makes a loud noise", "tighten the screw at the back"},
		{"will not switch on", "try another socket"},
	}},
	{"vacuum", "brush", Fact{"7", "21"}, Fact{"five", "six"}, []Fault{
		{"lost its power", "empty the bag and clean the filter"},
		{"will not charge", "clean the contacts with a dry cloth"},
		{"smells of dust", "wash the filter and let it dry"},
	}},
	{"radio", "cable", Fact{"14", "30"}, Fact{"six", "seven"}, []Fault{
		{"finds no station", "pull out the aerial and scan again"},
		{"keeps switching off", "fit new batteries"},
		{"has no sound", "turn the mute button off"},
	}},
	{"camera", "strap", Fact{"21", "60"}, Fact{"seven", "two"}, []Fault{
		{"takes dark pictures", "clean the lens with a dry cloth"},
		{"will not charge", "clean the contacts with a dry cloth"},
		{"keeps switching off", "charge the battery overnight"},
	}},
	{"keyboard", "cable", Fact{"30", "90"}, Fact{"two", "three"}, []Fault{
		{"types letters twice", "clean the keys with dry air"},
		{"loses the connection", "fit new batteries"},
		{"stopped working", "try another socket"},
	}},
	{"printer", "tray", Fact{"60", "7"}, Fact{"three", "four"}, []Fault{
		{"jams all the time", "empty the tray and try again"},
		{"prints blank pages", "run the cleaning program twice"},
		{"loses the connection", "hold the pairing button for ten seconds"},
	}},
	{"speaker", "cable", Fact{"90", "14"}, Fact{"four", "five"}, []Fault{
		{"has no sound", "hold the pairing button for ten seconds"},
		{"keeps switching off", "charge the battery overnight"},
		{"loses the connection", "hold the button for ten seconds"},
	}},
}

var names = []string{
	"Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jonas", "Karen", "Leo",
	"Maria", "Nils", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor",
}

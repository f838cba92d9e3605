"""The command line: `--name value` pairs, and the words that name metrics and stored types."""
from vicinal.system.parallel import MAX_THREADS

comptime LARGEST = 1 << 31


def metric_names() -> List[String]:
    """Returns the names of the metrics in the order of their codes."""
    return ["l2", "ip", "cosine"]


def dtype_names() -> List[String]:
    """Returns the names of the stored types in the order of their codes."""
    return ["float32", "float16", "bfloat16", "int8", "uint8"]


def quantization_names() -> List[String]:
    """Returns the names of what a graph may be walked on, in the order of their codes."""
    return ["auto", "none", "u8", "sq8", "rabitq4"]


def whole_number(text: String, label: String, low: Int, high: Int) raises -> Int:
    """Reads a number of decimal digits.

    Raises:
        Where `text` is anything else or the number is not in low .. high.
    """
    var value = -1
    if text.is_ascii_digit() and text.byte_length() <= 18:
        value = Int(text)
    if value < low or value > high:
        raise Error(t"{label}: expected a whole number from {low} to {high}, got '{text}'")
    return value


struct Options(Movable):
    """What stands behind the command on the command line."""

    var values: Dict[String, String]
    """Values by name, without the dashes."""

    def __init__(out self, command: String, words: List[String], allowed: List[String]) raises:
        """Reads `--name value` pairs.

        Args:
            command: For messages.
            words: The command line behind the command.
            allowed: Names that the command takes.

        Raises:
            Where a name is unknown or given twice, or a value is missing.
        """
        self.values = Dict[String, String]()
        var i = 0
        while i < len(words):
            var name = String(words[i].removeprefix("--"))
            if not words[i].startswith("--") or name not in allowed:
                raise Error(t"{words[i]}: unknown; {command} takes --{', --'.join(allowed)}")
            if name in self.values:
                raise Error(t"--{name}: expected once, got twice")
            if i + 1 == len(words) or words[i + 1].startswith("--"):
                raise Error(t"--{name}: expected a value behind it, got none")
            self.values[name] = words[i + 1]
            i += 2

    def has(self, name: String) -> Bool:
        """Tells whether an option was given."""
        return name in self.values

    def text(self, name: String, default: String) raises -> String:
        """Returns the value of an option."""
        return self.values[name] if name in self.values else default

    def required(self, name: String) raises -> String:
        """Returns the value of an option that must be given."""
        if name not in self.values:
            raise Error(t"--{name}: expected, but not given")
        return self.values[name]

    def whole(self, name: String, default: Int, low: Int = 1, high: Int = LARGEST) raises -> Int:
        """Returns a number."""
        if name not in self.values:
            return default
        return whole_number(self.values[name], "--" + name, low, high)

    def wholes(
        self, name: String, default: List[Int], low: Int = 1, high: Int = LARGEST
    ) raises -> List[Int]:
        """Returns numbers that are separated by commas."""
        if name not in self.values:
            return default.copy()
        var numbers = List[Int]()
        for part in self.values[name].split(","):
            numbers.append(whole_number(String(part), "--" + name, low, high))
        return numbers^

    def threads(self) raises -> Int:
        """Returns the number of threads."""
        return self.whole("threads", 1, 1, MAX_THREADS)

    def choices(self, name: String, among: List[String], default: List[Int]) raises -> List[Int]:
        """Returns the positions of words, separated by commas, in a list."""
        if name not in self.values:
            return default.copy()
        var positions = List[Int]()
        for part in self.values[name].split(","):
            var word = String(part)
            if word not in among:
                raise Error(t"--{name}: expected one of {', '.join(among)}, got '{word}'")
            positions.append(among.index(word))
        return positions^

    def choice(self, name: String, among: List[String], default: Int) raises -> Int:
        """Returns the position of one word in a list."""
        var positions = self.choices(name, among, [default])
        if len(positions) != 1:
            raise Error(
                t"--{name}: expected one of {', '.join(among)}, got {len(positions)} of them"
            )
        return positions[0]

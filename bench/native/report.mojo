"""What comes out: text in columns for people, JSON lines for programs."""
from std.sys import CompilationTarget

from vicinal.kernels.products import W

comptime INDEX_NAME = "vicinal-native"
"""What stands for this program in records, beside the names of other libraries."""


def fixed(value: Float64, decimals: Int) -> String:
    """Writes a number with a fixed number of decimals."""
    var scale = Float64(10**decimals)
    var units = Int(round(abs(value) * scale))
    var text = String(units)
    if decimals > 0:
        while text.byte_length() <= decimals:
            text = "0" + text
        var point = text.byte_length() - decimals
        text = String(text[byte=:point]) + "." + String(text[byte=point:])
    return "-" + text if value < 0 and units != 0 else text


def cell(text: String, width: Int) -> String:
    """Returns text moved to the right end of a column."""
    return text.ascii_rjust(width)


def cell(value: Int, width: Int) -> String:
    """Returns a number in a column."""
    return String(value).ascii_rjust(width)


def cell(value: Float64, decimals: Int, width: Int) -> String:
    """Returns a number with a fixed number of decimals in a column."""
    return fixed(value, decimals).ascii_rjust(width)


def processor() raises -> String:
    """Returns the name that the system has for the processor."""
    try:
        with open("/proc/cpuinfo", "r") as file:
            var text = file.read()
            for line in text.split("\n"):
                if line.startswith("model name"):
                    return String(line[byte = line.find(":") + 1 :].strip())
    except:
        pass  # not every system has the file
    return "x86-64" if CompilationTarget.is_x86() else "aarch64"


def quoted(text: String) -> String:
    """Returns text as a JSON string."""
    var out = String('"')
    for codepoint in text.codepoints():
        var value = Int(codepoint)
        if value == ord('"') or value == ord("\\"):
            out += "\\"
        if value < 32:
            out += "\\u00" + ("1" if value >= 16 else "0")
            out += "0123456789abcdef"[byte = value % 16 : value % 16 + 1]
        else:
            out += String(codepoint)
    return out + '"'


@fieldwise_init
struct Record(Copyable, Movable):
    """A JSON object in the making."""

    var body: String
    """The members so far."""

    @staticmethod
    def of(kind: String) -> Self:
        """Starts the record of a kind of measurement."""
        var record = Self("")
        record.text("kind", kind)
        return record^

    def raw(mut self, name: String, value: String):
        """Adds a member whose value is JSON already."""
        if self.body:
            self.body += ", "
        self.body += quoted(name) + ": " + value

    def text(mut self, name: String, value: String):
        """Adds a string."""
        self.raw(name, quoted(value))

    def whole(mut self, name: String, value: Int):
        """Adds a whole number."""
        self.raw(name, String(value))

    def number(mut self, name: String, value: Float64):
        """Adds a finite number."""
        self.raw(name, String(value))

    def spread(mut self, name: String, values: List[Float64]):
        """Adds an object of median, min, max, spread ((max - min) / median) and the values."""
        var middle = median(values)
        var low = values[0]
        var high = values[0]
        for value in values:
            low = min(low, value)
            high = max(high, value)
        var inner = Record("")
        inner.number("median", middle)
        inner.number("min", low)
        inner.number("max", high)
        inner.number("spread", (high - low) / middle if middle != 0 else 0)
        var list = String("[")
        for i in range(len(values)):
            list += (", " if i else "") + String(values[i])
        inner.raw("values", list + "]")
        self.raw(name, inner.json())

    def latencies(mut self, values: List[Float64], width: Int) raises -> String:
        """Adds the quantiles of latencies in microseconds.

        Returns:
            p50, p95 and p99 in columns of a width.
        """
        var ordered = values.copy()
        sort(ordered)
        var inner = Record("")
        var line = String("")
        for percent in [50, 95, 99]:
            var value = quantile(ordered, Float64(percent) / 100)
            inner.number("p" + String(percent), value)
            line += cell(value, 1, width)
        self.raw("latency_us", inner.json())
        return line

    def json(self) -> String:
        """Returns the object."""
        return "{" + self.body + "}"


def quantile(ordered: List[Float64], share: Float64) -> Float64:
    """Returns a quantile of one or more ascending values, linear between two of them."""
    var place = share * Float64(len(ordered) - 1)
    var low = Int(place)
    var high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - Float64(low))


def median(values: List[Float64]) -> Float64:
    """Returns the median of values in any order."""
    var ordered = values.copy()
    sort(ordered)
    return quantile(ordered, 0.5)


struct Report(Movable):
    """Where results go."""

    var path: String
    """File that JSON lines are appended to; empty for none."""

    def __init__(out self, path: String) raises:
        """Begins a report, and a file if there is a path.

        Raises:
            Where the file cannot be written: before anything is measured.
        """
        self.path = path
        var record = Record.of("machine")
        record.text("processor", processor())
        record.whole("float32_lanes", W)
        self.put(record)

    def put(self, record: Record) raises:
        """Appends a record to the file."""
        if self.path:
            var line = record.json() + "\n"
            try:
                var file = open(self.path, "a")
                file.write_all(line.as_bytes())
                file.close()
            except error:
                raise Error(t"--json {self.path}: {error}")

"""Explores schedules.

Words on the command line say which, one after the other:

all BOUND                   every scenario, with that many preemptions (two searches with one less); none may go wrong
rule RULE SCENARIO BOUND    one scenario with a rule broken; it must go wrong
draw FIRST COUNT            each scenario of three writers and a search, in COUNT orders drawn by seeds from FIRST on
pause SEEDS                 the same, with each thread paused at each of its points in SEEDS orders: the others must end
look SCENARIO BOUND         one scenario
replay SCENARIO RULE ...    the schedule that follows, as a failing one was named; its steps are printed
"""
from std.sys import argv, exit
from std.time import perf_counter_ns

from explorer import Explorer, Scenario, draw, explore, new_explorer, pause, replay
from scenarios import Pins, names, on_heap, world, writers
from vicinal.system.memory import Ptr


def look[
    S: Scenario
](name: String, scenario: Ptr[S], bound: Int, rule: String, schedule: List[Int]) raises -> Bool:
    """Explores one scenario, or repeats one schedule of it; returns whether all went well."""
    var it = new_explorer(bound)
    it[].break_rule = rule
    var start = perf_counter_ns()
    var wrong = replay(it, scenario, schedule) if len(schedule) != 0 else explore(it, scenario)
    var milliseconds = (perf_counter_ns() - start) // 1_000_000
    print(
        "  ",
        name,
        ": ",
        it[].schedules,
        " schedules of at most ",
        bound,
        " preemptions, ",
        it[].all_steps // max(it[].schedules, 1),
        " steps each, ",
        milliseconds,
        " ms",
        sep="",
    )
    if wrong != "":
        print("    ", wrong, sep="")
    if rule != "" and it[].asked == 0:
        print("    nobody asked for the rule")
    return wrong == ""


def look_at(name: String, bound: Int, rule: String, schedule: List[Int]) raises -> Bool:
    """Does it for a scenario of a name."""
    if name == "pins":
        return look(name, on_heap(Pins(1)), bound, rule, schedule)
    if name == "pins of two":
        return look(name, on_heap(Pins(2)), bound, rule, schedule)
    return look(name, on_heap(world(name)), bound, rule, schedule)


def told(it: Ptr[Explorer], name: String, what: String, start: Int, wrong: String) -> Bool:
    """Prints how schedules went; returns whether all went well."""
    print(
        "  ",
        name,
        ": ",
        it[].schedules,
        " schedules ",
        what,
        ", ",
        it[].all_steps // max(it[].schedules, 1),
        " steps each, ",
        (Int(perf_counter_ns()) - start) // 1_000_000,
        " ms",
        sep="",
    )
    if wrong != "":
        print("    ", wrong, sep="")
    return wrong == ""


def draw_all(first: Int, count: Int) raises -> Bool:
    """Runs drawn schedules of every scenario of several writers."""
    var well = True
    for name in writers():
        var it = new_explorer(0)
        var start = Int(perf_counter_ns())
        var wrong = draw(it, on_heap(world(name)), first, count)
        well = told(it, name, "drawn", start, wrong) and well
    return well


def pause_all(seeds: Int) raises -> Bool:
    """Pauses each thread of every scenario of several writers."""
    var well = True
    for name in writers():
        for victim in range(4):
            var it = new_explorer(0)
            var start = Int(perf_counter_ns())
            var wrong = pause(it, on_heap(world(name)), victim, seeds)
            var what = String("with thread ") + String(victim) + " paused, in "
            what += String(it[].stalled) + " writers waited for it"
            if victim == 3 and it[].stalled != 0:
                wrong = "a writer cannot end without a search"
            well = told(it, name, what, start, wrong) and well
    return well


def main() raises:
    var words = List[String]()
    for i in range(1, len(argv())):
        words.append(String(argv()[i]))
    var well = True
    var i = 0
    while i < len(words):
        if words[i] == "all":
            var all = names()
            all.append("pins")
            all.append("pins of two")
            for name in all:
                var bound = Int(words[i + 1])
                if name == "two searches":  # else as many schedules as all others have together
                    bound = max(bound - 1, 0)
                well = look_at(name, bound, "", List[Int]()) and well
            i += 2
        elif words[i] == "draw":
            well = draw_all(Int(words[i + 1]), Int(words[i + 2])) and well
            i += 3
        elif words[i] == "pause":
            well = pause_all(Int(words[i + 1])) and well
            i += 2
        elif words[i] == "look":
            well = look_at(words[i + 1], Int(words[i + 2]), "", List[Int]()) and well
            i += 3
        elif words[i] == "rule":
            print("broken: ", words[i + 1], sep="")
            var noticed = not look_at(words[i + 2], Int(words[i + 3]), words[i + 1], List[Int]())
            print("    ", "noticed" if noticed else "NOT NOTICED", sep="")
            well = noticed and well
            i += 4
        else:
            var schedule = List[Int]()
            for j in range(i + 3, len(words)):
                schedule.append(Int(words[j]))
            well = look_at(words[i + 1], 99, words[i + 2], schedule) and well
            i = len(words)
    if not well:
        exit(1)

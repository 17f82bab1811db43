# Turns the statuses of the demo's events (an array, in the order they were fired) into lines of fields.

def ms:
  capture("^(?<whole>[^.Z]+)(\\.(?<part>[0-9]+))?Z$")
  | ((.whole + "Z") | fromdateiso8601) * 1000 + ((.part // "0") + "00" | .[0:3] | tonumber);

def duration: if . < 1000 then "\(.) ms" else "\(. / 100 | round / 10) s" end;

# Each event at each node, with the number of its release.
def deliveries:
  to_entries[] | (.key + 1) as $release | (.value.fired_at | ms) as $fired
  | .value.targets[] | . + {release: $release, fired: $fired};

def releases: map(.release) | if length == 1 then "release \(.[0])" else "releases " + (map(tostring) | join(" and ")) end;

def notifies:
  to_entries[]
  | {at: (.value.fired_at | ms), kind: "notify", key: .value.event_id, node: .value.origin,
     text: "fires '\(.value.trigger)' at \(.value.targets | length) nodes, release \(.key + 1)"};

# Lists for one node each run once, with all events that it covers, and the events that wait while it is in progress. An
# event that seems to wait may be covered by a run that was just seen to start: "start?".
def node_lines:
  .[0].certname as $node
  | any(.state == "pending") as $more
  | (map(select(.run_id)) | group_by(.run_id)[] | sort_by(.release) | .[0] as $first
     | {at: ($first.started_at | ms), kind: (if $more then "start?" else "start" end), key: "start \($first.run_id)", $node,
        text: "Puppet run starts for \(releases), \(($first.started_at | ms) - .[-1].fired | duration) after the\(if length > 1 then " last" else "" end) notify"},
       (select($first.finished_at)
        | {at: ($first.finished_at | ms), kind: "end", key: "end \($first.run_id)", $node,
           text: "Puppet run ends: \($first.outcome), after \(($first.finished_at | ms) - ($first.started_at | ms) | duration)"})),
    (if any(.state == "running") then
       .[] | select(.state == "pending")
       | {at: .fired, kind: "waits", key: "waits \(.release) \($node)", $node,
          text: "release \(.release) waits its turn: the run in progress began before it"}
     else empty end),
    (.[] | select(.state | IN("pending", "running", "done") | not)
     | {at: .fired, kind: "other", key: "other \(.release) \($node) \(.state)", $node,
        text: "release \(.release) is \(.state)\(if .reason then ": " + .reason else "" end)"});

def lines:
  (.[0].fired_at | ms) as $start
  | [notifies, ([deliveries] | group_by(.certname)[] | node_lines)] | sort_by(.at)[]
  | [.at - $start, .kind, .key, .node, .text] | @tsv;

def all_started: all(deliveries; .state | IN("pending", "spooled") | not);

def all_ended: all(deliveries; .state | IN("pending", "running", "held", "retrying", "spooled") | not);

def endings: deliveries | [.release, .certname, .state, .run_id // "-"] | @tsv;

def padded($width): . + " " * ([$width - length, 1] | max);

def table:
  ([.[] | .targets[].certname] | unique) as $nodes
  | [deliveries] as $all
  | ("" | padded(11)) + ($nodes | map(split(".")[0] | padded(12)) | add),
    (range(1; length + 1) as $release
     | ("release \($release)" | padded(11))
       + ($nodes | map(. as $node
          | $all[] | select(.release == $release and .certname == $node)
          | ((.started_at | ms) - .fired | duration) | padded(12)) | add));

#!/bin/sh
# Brings back the streams that a RabbitMQ has and does not serve: docs/runbooks/broker-streams-gone.md.
#
#   revive-streams.sh [--await PID] [-n NODE ...]     on the broker's machine, as a user who may run rabbitmqctl
#
# --await waits for the broker that starts as this process, two minutes at most; the other arguments are rabbitmqctl's. What
# the process that coordinates streams has under way is none of this: whatever seems wrong is looked at again two seconds later.
#
# It is not started: its name goes back into the file of such names, and it starts the streams that it knows. Another one was
# started instead, by a stream that was declared since: that one is told of the streams that it does not know, whose data are
# where they were. It waits for ever for word of where a stream is served: it is told to look again (rabbitmq-server issue
# 6179, mended in 3.11.3). The broker died as it began a segment of a stream, and made the segment's index and not the segment:
# that index, with which the stream never starts, is removed (mended in 3.13.7). Says `revived`, `nothing_to_do` or
# `not_revived`, and of what.
set -eu

ctl="${RABBITMQCTL:-rabbitmqctl}"
if ! command -v "$ctl" >/dev/null 2>&1; then
    printf '%s\n' "revive-streams: $ctl is missing: run this where the broker is" >&2
    exit 3
fi
# It ends with this script.
ctl() {
    setpriv --pdeathsig KILL "$ctl" "$@" < /dev/null
}
if [ "${1:-}" = --await ]; then
    pid="$2"
    shift 2
    ctl "$@" wait --pid "$pid" --timeout 120 >&2
fi

said="$(ctl "$@" eval '
#{names := Names, data_dir := Folder} = ra_system:fetch(coordination),
Name = rabbit_stream_coordinator,
Lasting = fun(Look) ->
    case Look() of
        [] -> [];
        First ->
            timer:sleep(2000),
            Now = Look(),
            [One || One <- First, lists:member(One, Now)]
    end
end,
Its = fun(File) ->
    case file:consult(File) of
        {ok, [#{id := {Found, _}}]} -> Found =:= Name;
        _ -> false
    end
end,
Nameless = fun() ->
    case ra_directory:uid_of(Names, Name) of
        undefined ->
            Files = filelib:wildcard(filename:join([Folder, "*", "config"])),
            [filename:basename(filename:dirname(File)) || File <- Files, Its(File)];
        _ -> []
    end
end,
Named = case Lasting(Nameless) of
    [Uid] ->
        Table = maps:get(directory_rev, Names),
        ok = dets:insert(Table, {Name, list_to_binary(Uid)}),
        ok = dets:sync(Table),
        ok = rabbit_stream_coordinator:recover(),
        [{coordinator, Uid}];
    _ -> []
end,
Streams = fun() ->
    [{maps:get(name, amqqueue:get_type_state(Q)), Key}
        || Key <- mnesia:dirty_all_keys(rabbit_durable_queue),
           Q <- mnesia:dirty_read(rabbit_durable_queue, Key),
           amqqueue:get_type(Q) =:= rabbit_stream_queue,
           lists:member(node(), maps:get(nodes, amqqueue:get_type_state(Q)))]
end,
% Of a segment that was only begun: its index has no record yet, and is made first.
Halves = fun() ->
    [{Id, Index} || {Id, _} <- Streams(),
        Index <- filelib:wildcard(filename:join(osiris_log:directory(Id), "*.index")),
        filelib:file_size(Index) =< 8,
        not filelib:is_file(filename:rootname(Index) ++ ".segment")]
end,
Cleared = [case file:delete(Index) of
    ok -> {cleared, Id};
    Why -> {failed, Id, Why}
end || {Id, Index} <- Lasting(Halves)],
Knows = fun(Id) ->
    case whereis(Name) of
        undefined -> false;
        _ -> rabbit_stream_coordinator:members(Id) =/= {error, not_found}
    end
end,
Unknown = fun() -> [Stream || {Id, _} = Stream <- Streams(), not Knows(Id)] end,
% A coordinator begins with the first epoch, and a stream that has seen a later one does not follow it.
IsFirst = fun(Q) ->
    {_, Epochs} = osiris_log:overview(osiris_log:directory(amqqueue:get_type_state(Q))),
    lists:all(fun({Epoch, _}) -> Epoch =< 1 end, Epochs)
end,
Tell = fun({Id, Key}) ->
    [Q] = mnesia:dirty_read(rabbit_durable_queue, Key),
    case IsFirst(Q) andalso rabbit_stream_coordinator:new_stream(Q, node()) of
        {ok, {ok, _}, _} -> {told, Id};
        Why -> {failed, Id, Why}
    end
end,
Told = [Tell(Stream) || Stream <- Lasting(Unknown)],
% Of what it knows about a stream: the epoch whose place it waits for.
Awaited = fun(Id) ->
    case whereis(Name) =/= undefined andalso rabbit_stream_coordinator:state() of
        State when element(1, State) =:= Name ->
            case maps:find(Id, element(2, State)) of
                {ok, Stream} -> lists:keyfind(updating, 1, [F || F <- tuple_to_list(Stream), is_tuple(F)]);
                error -> false
            end;
        _ -> false
    end
end,
Waiting = fun() -> [{Id, Epoch} || {Id, _} <- Streams(), {updating, Epoch} <- [Awaited(Id)]] end,
Looked = [begin
    Failed = #{action => updating_mnesia, index => 0, node => node(), epoch => Epoch},
    _ = ra:process_command({Name, node()}, {action_failed, Id, Failed}),
    Id
end || {Id, Epoch} <- Lasting(Waiting)],
Looked =:= [] orelse timer:sleep(1000),
Found = [case Awaited(Id) of
    {updating, _} -> {failed, Id, waiting};
    _ -> {found, Id}
end || Id <- Looked],
All = Named ++ Cleared ++ Told ++ Found,
case {[Id || {failed, Id, _} <- All], All} of
    {[], []} -> nothing_to_do;
    {[], Done} -> {revived, Done};
    {_, Done} -> {not_revived, Done}
end.')"
printf '%s\n' "$said"
case "$said" in
*not_revived*) exit 1 ;;
esac

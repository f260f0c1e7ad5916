#!/bin/sh
# Brings back the streams of a RabbitMQ that does not remember having any: docs/runbooks/broker-streams-gone.md.
#
#   revive-streams.sh [-n NODE ...]     on the broker's machine, as a user who may run rabbitmqctl; arguments are rabbitmqctl's
#
# The process that coordinates streams is not started: its name goes back into the file of such names, and it starts the
# streams that it knows. Another one was started instead, by a stream that was declared since: that one is told of the streams
# that it does not know, whose data are where they were. Says `revived`, `nothing_to_do` or `not_revived`, and of what.
set -eu

ctl="${RABBITMQCTL:-rabbitmqctl}"
if ! command -v "$ctl" >/dev/null 2>&1; then
    printf '%s\n' "revive-streams: $ctl is missing: run this where the broker is" >&2
    exit 3
fi

said="$("$ctl" "$@" eval '
#{names := Names, data_dir := Folder} = ra_system:fetch(coordination),
Name = rabbit_stream_coordinator,
Its = fun(File) ->
    case file:consult(File) of
        {ok, [#{id := {Found, _}}]} -> Found =:= Name;
        _ -> false
    end
end,
Named = case ra_directory:uid_of(Names, Name) of
    undefined ->
        Files = filelib:wildcard(filename:join([Folder, "*", "config"])),
        case [filename:basename(filename:dirname(File)) || File <- Files, Its(File)] of
            [Uid] ->
                Table = maps:get(directory_rev, Names),
                ok = dets:insert(Table, {Name, list_to_binary(Uid)}),
                ok = dets:sync(Table),
                ok = rabbit_stream_coordinator:recover(),
                [{coordinator, Uid}];
            _ -> []
        end;
    _ -> []
end,
Streams = [{maps:get(name, amqqueue:get_type_state(Q)), Q}
    || Key <- mnesia:dirty_all_keys(rabbit_durable_queue),
       Q <- mnesia:dirty_read(rabbit_durable_queue, Key),
       amqqueue:get_type(Q) =:= rabbit_stream_queue,
       lists:member(node(), maps:get(nodes, amqqueue:get_type_state(Q)))],
Knows = fun(Id) ->
    case whereis(Name) of
        undefined -> false;
        _ -> rabbit_stream_coordinator:members(Id) =/= {error, not_found}
    end
end,
% A coordinator begins with the first epoch, and a stream that has seen a later one does not follow it.
IsFirst = fun(Q) ->
    {_, Epochs} = osiris_log:overview(osiris_log:directory(amqqueue:get_type_state(Q))),
    lists:all(fun({Epoch, _}) -> Epoch =< 1 end, Epochs)
end,
Tell = fun({Id, Q}) ->
    case IsFirst(Q) andalso rabbit_stream_coordinator:new_stream(Q, node()) of
        {ok, {ok, _}, _} -> {told, Id};
        Why -> {untold, Id, Why}
    end
end,
Told = [Tell(Stream) || {Id, _} = Stream <- Streams, not Knows(Id)],
case {[Id || {untold, Id, _} <- Told], Named ++ Told} of
    {[], []} -> nothing_to_do;
    {[], Done} -> {revived, Done};
    {_, Done} -> {not_revived, Done}
end.')"
printf '%s\n' "$said"
case "$said" in
*not_revived*) exit 1 ;;
esac

"""Publisher, subscriber, request socket: the only package that knows ZeroMQ.

A publisher never waits: a subscriber that is too slow loses messages, sees it in ``seq``, and slows
nobody. Whatever is received is checked by `messages.decode`; what does not pass is counted in
``malformed`` and dropped.
"""

from rtpose.bus.requests import Requester as Requester
from rtpose.bus.requests import RequestServer as RequestServer
from rtpose.bus.sockets import public_key as public_key
from rtpose.bus.streams import DirectReceiver as DirectReceiver
from rtpose.bus.streams import Inbox as Inbox
from rtpose.bus.streams import Outbox as Outbox
from rtpose.bus.streams import Poller as Poller
from rtpose.bus.streams import Publisher as Publisher
from rtpose.bus.streams import Subscriber as Subscriber
from rtpose.bus.streams import direct_pair as direct_pair

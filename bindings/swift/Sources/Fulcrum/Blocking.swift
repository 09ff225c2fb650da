import Dispatch

/// Where calls wait: a thread of Dispatch's, never one of the few that run tasks.
private let queue = DispatchQueue(label: "dev.fulcrum", attributes: .concurrent)

/// Makes a call that waits. When the task is cancelled, `cancel` ends the call, and the error is `CancellationError`.
func blocking<T: Sendable>(
    cancel: @escaping @Sendable () -> Void,
    _ call: @escaping @Sendable () throws -> T
) async throws -> T {
    do {
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async { continuation.resume(with: Result { try translated(call) }) }
            }
        } onCancel: {
            cancel()
        }
    } catch FulcrumError.cancelled where Task.isCancelled {
        throw CancellationError()
    }
}
